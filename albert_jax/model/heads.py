"""What stands on the encoder, in pretraining and in fine-tuning."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.model.custom_gradients import add_bias
from albert_jax.model.layers import Dense, LayerNorm, activation

PRETRAINING = ("pooler", "mlm", "sop")
HEADS = ("pooler", "mlm", "sop", "classifier", "span")
# What a model is for -> its heads. `classifier` stands on the pooled [CLS]; in
# `token_classification` it stands on every piece.
KINDS = {
    "encoder": ("pooler",),
    "pretraining": ("pooler", "mlm", "sop"),
    "masked_lm": ("mlm",),
    "classification": ("pooler", "classifier"),
    "multiple_choice": ("pooler", "classifier"),
    "token_classification": ("classifier",),
    "question_answering": ("span",),
}


def gather(x_BTD: jax.Array, positions_BP: jax.Array) -> jax.Array:
    """The vectors at given positions of each row, x_BPD."""
    return jnp.take_along_axis(x_BTD, positions_BP[:, :, None], axis=1)


def make_head(
    name: str, config: ModelConfig, num_labels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Module:
    """The module of a head.

    Args:
      name: `pooler`, `mlm`, `sop` (2 classes), `span` (its start and its end) or
        `classifier` (`num_labels` classes).
      config: sizes.
      num_labels: classes of the classifier.
      dtype: of the matrix products.
      rngs: source of the initial values.
    """
    if name == "mlm":
        return MaskedLMHead(config, dtype=dtype, rngs=rngs)
    sizes = {"pooler": config.hidden_size, "sop": 2, "span": 2, "classifier": num_labels}
    return Dense(config.hidden_size, sizes[name], config, dtype, rngs)


class MaskedLMHead(nnx.Module):
    """Dense D→E, activation, norm, then the tied token table and a bias."""

    def __init__(self, config: ModelConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes all but the table, which is the token embedding's."""
        self.act = activation(config.hidden_act)
        self.dense = Dense(config.hidden_size, config.embedding_size, config, dtype, rngs)
        self.norm = LayerNorm(config.embedding_size, config, dtype)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))

    def __call__(self, x_BPD: jax.Array, table_VE: jax.Array) -> jax.Array:
        """Float32 logits_BPV for the hidden states at the masked positions."""
        x_BPE = self.norm(self.act(self.dense(x_BPD)))
        logits_BPV = jnp.einsum(
            "BPE,VE->BPV",
            x_BPE,
            table_VE.astype(x_BPE.dtype),
            preferred_element_type=jnp.float32,
        )
        return add_bias(logits_BPV, self.bias[...])


def heads_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The heads that a parameter tree has."""
    return tuple(head for head in HEADS if head in params)
