"""What every format is read into and written from."""

from typing import Any, NamedTuple

from albert_jax.config import ModelConfig

# What a model is for -> its heads. `classifier` stands on the pooled [CLS] but in `tagging`,
# where it stands on every piece.
KINDS = {
    "encoder": ("pooler",),
    "pretraining": ("pooler", "mlm", "sop"),
    "masked_lm": ("mlm",),
    "classification": ("pooler", "classifier"),
    "choice": ("pooler", "classifier"),
    "tagging": ("classifier",),
    "span": ("span",),
}


class Moments(NamedTuple):
    """LAMB's first and second moments, nested dicts like the parameters."""

    mu: Any
    nu: Any


class Weights(NamedTuple):
    """A model between two formats.

    Attributes:
      config: its sizes.
      params: nested dict of float32 numpy arrays.
      kind: a key of `KINDS`.
      tokenizer: a SentencePiece model, the bytes of its file; None where there is none.
      moments: the optimizer's, where they came along.
      step: optimizer steps done, 0 where that is not known.
      labels: names of the classifier's classes, where they have names.
    """

    config: ModelConfig
    params: dict[str, Any]
    kind: str
    tokenizer: bytes | None = None
    moments: Moments | None = None
    step: int = 0
    labels: tuple[str, ...] = ()
