"""Heads on top of the encoder, for pretraining and fine-tuning."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.model.custom_gradients import add_bias
from albert_jax.model.layers import Dense, LayerNorm, activation

PRETRAINING = ("pooler", "mlm", "sop")
HEADS = ("pooler", "mlm", "sop", "classifier", "span", "decoder")
# The purpose of a model -> its heads; a decoder has `mlm` for its output. `classifier` is applied
# to the pooled [CLS]; in `token_classification` it is applied to every token.
KINDS = {
    "encoder": ("pooler",),
    "pretraining": ("pooler", "mlm", "sop"),
    "masked_lm": ("mlm",),
    "classification": ("pooler", "classifier"),
    "multiple_choice": ("pooler", "classifier"),
    "token_classification": ("classifier",),
    "question_answering": ("span",),
    "translation": ("decoder", "mlm"),
    "embedding": (),
}


def gather(x_BTD: jax.Array, positions_BP: jax.Array) -> jax.Array:
    """Returns the vectors at given positions of each row, x_BPD."""
    return jnp.take_along_axis(x_BTD, positions_BP[:, :, None], axis=1)


def make_head(
    name: str, config: ModelConfig, num_labels: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Module:
    """Returns the module of a head.

    Args:
      name: `pooler`, `mlm`, `sop` (2 classes), `span` (start and end) or `classifier`
        (`num_labels` classes).
      config: sizes.
      num_labels: classes of the classifier.
      dtype: dtype of the matrix products.
      rngs: source of the initial values.
    """
    if name == "mlm":
        return MaskedLMHead(config, dtype=dtype, rngs=rngs)
    sizes = {"pooler": config.hidden_size, "sop": 2, "span": 2, "classifier": num_labels}
    return Dense(config.hidden_size, sizes[name], config, dtype, rngs)


class MaskedLMHead(nnx.Module):
    """A dense layer D→E, activation and norm, then the tied token table and a bias."""

    def __init__(self, config: ModelConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Creates everything but the table, which is the token embedding's."""
        self.act = activation(config.hidden_act)
        self.dense = Dense(config.hidden_size, config.embedding_size, config, dtype, rngs)
        self.norm = LayerNorm(config.embedding_size, config, dtype)
        self.bias = nnx.Param(jnp.zeros(config.vocab_size))

    def __call__(self, x_BPD: jax.Array, table_VE: jax.Array) -> jax.Array:
        """Returns float32 logits_BPV for the hidden states at the masked positions."""
        x_BPE = self.norm(self.act(self.dense(x_BPD)))
        logits_BPV = jnp.einsum(
            "BPE,VE->BPV",
            x_BPE,
            table_VE.astype(x_BPE.dtype),
            preferred_element_type=jnp.float32,
        )
        return add_bias(logits_BPV, self.bias[...])


def heads_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the heads in a parameter tree."""
    return tuple(head for head in HEADS if head in params)
