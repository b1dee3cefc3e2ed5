"""What every format is read into and written from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.data.files import file_sha256

# Settings of the model that may differ from those of the weights: they are of training.
_FREE = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")


def check_same_model(theirs: ModelConfig, ours: ModelConfig, whose: str) -> None:
    """Checks that weights of the model `theirs` are weights of the model `ours`.

    Raises:
      ValueError: naming every setting that differs.
    """
    differing = [
        f"model.{name} is {getattr(theirs, name)!r} there and {value!r} here"
        for name, value in vars(ours).items()
        if name not in _FREE and getattr(theirs, name) != value
    ]
    if differing:
        raise ValueError(f"{whose} is of another model: {'; '.join(differing)}")


# Optimizers whose state is two moments of each parameter, which formats have a place for.
HAVE_MOMENTS = ("lamb", "adamw")


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
      task: the settings that it was fine-tuned with, where they are known.
      validation: held-out metrics, where they are known.
      files: all that this was read from.
    """

    config: ModelConfig
    params: dict[str, Any]
    kind: str
    tokenizer: bytes | None = None
    moments: Moments | None = None
    step: int = 0
    labels: tuple[str, ...] = ()
    task: TaskConfig | None = None
    validation: Mapping[str, float] = {}
    files: tuple[Path, ...] = ()


def provenance(source: str, weights: Weights) -> dict[str, Any]:
    """What a run's record says of the weights that it began with.

    Returns:
      `source`, as it was named, and `files`: the sha256 of each file read, by its name below the
      folder that holds them all.
    """
    top = os.path.commonpath([file.parent for file in weights.files])
    digests = {os.path.relpath(path, top): file_sha256(path) for path in sorted(weights.files)}
    return {"source": source, "files": digests}
