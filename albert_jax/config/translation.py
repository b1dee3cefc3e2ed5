"""Settings of models that translate."""

from dataclasses import dataclass

from albert_jax.config.choices import choice


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder of a model that translates; its widths and heads are the encoder's.

    Attributes:
      num_layers: its layers; 0 for as many as the encoder has.
      share_encoder: whether its self-attention and feed-forward blocks are the encoder's.
        Cross-attention is always its own. Source: arXiv:1907.12461, section 4 (BERTShare).
      share_embeddings: whether its embeddings and output table are the encoder's.
    """

    num_layers: int = 0
    share_encoder: bool = True
    share_embeddings: bool = True


@dataclass(frozen=True)
class TranslationConfig:
    """How translation is learnt, and searched for.

    Attributes:
      label_smoothing: probability spread over the vocabulary in the loss.
      beam: hypotheses kept in the search; 1 is greedy.
      validation_beam: the same for the evaluations of a run.
      length_penalty: exponent of the length that a hypothesis' log-probability is divided by.
      penalty: what is raised to it: the length in tokens (`length`), or (5 + length) / 6 (`gnmt`).
        Source: arXiv:1609.08144, equation 14.
      init_decoder: whether a decoder with blocks of its own begins with the encoder's.
    """

    label_smoothing: float = 0.1
    beam: int = 5
    validation_beam: int = 1
    length_penalty: float = 1.0
    penalty: str = choice("length", "gnmt")
    init_decoder: bool = True
