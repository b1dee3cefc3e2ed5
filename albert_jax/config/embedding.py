"""Settings of models that embed texts."""

from dataclasses import dataclass

from albert_jax.config.choices import choice


@dataclass(frozen=True)
class EmbeddingConfig:
    """How a text becomes one vector, and how that is learnt.

    Attributes:
      pooling: the mean over its tokens (`mean`), or the vector of [CLS] (`cls`).
      temperature: what cosines are divided by in the softmax over a batch, where pairs have no
        scores. Source: arXiv:2104.08821, section 3.
    """

    pooling: str = choice("mean", "cls")
    temperature: float = 0.05
