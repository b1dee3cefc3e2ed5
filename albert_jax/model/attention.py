"""Multi-head self-attention with its residual and norm."""

import jax
import jax.numpy as jnp
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.model.layers import dense, dropout, layer_norm, split_keys


def segment_mask(segment_ids: jax.Array) -> jax.Array:
    """bool [B,1,T,S], true where query and key belong to one chunk.

    Padding (segment 0) sees padding only, so that no softmax runs over nothing.
    """
    return (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]


class Attention(nnx.Module):
    """`LN(x + output(attention(x)))`; query, key and value are parameters of their own."""

    def __init__(self, config: ModelConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes four D×D projections and the norm."""
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.dropout_rate = config.hidden_dropout_prob
        self.probs_dropout_rate = config.attention_probs_dropout_prob
        self.query = dense(size, size, config, dtype, rngs)
        self.key = dense(size, size, config, dtype, rngs)
        self.value = dense(size, size, config, dtype, rngs)
        self.output = dense(size, size, config, dtype, rngs)
        self.norm = layer_norm(size, config, dtype, rngs)

    def __call__(self, x_BTD: jax.Array, mask_B1TS: jax.Array, key: jax.Array | None) -> jax.Array:
        """Maps x_BTD to x_BTD; dropout is on where `key` is given."""
        B, T, D = x_BTD.shape
        probs_key, output_key = split_keys(key, 2)

        def heads(project: nnx.Linear) -> jax.Array:
            return project(x_BTD).reshape(B, T, self.num_heads, D // self.num_heads)

        q_BTNH, k_BSNH, v_BSNH = heads(self.query), heads(self.key), heads(self.value)
        if probs_key is not None and self.probs_dropout_rate > 0:
            y_BTNH = _attend_with_dropout(
                q_BTNH, k_BSNH, v_BSNH, mask_B1TS, self.probs_dropout_rate, probs_key
            )
        else:
            y_BTNH = jax.nn.dot_product_attention(
                q_BTNH, k_BSNH, v_BSNH, mask=mask_B1TS, scale=q_BTNH.shape[-1] ** -0.5
            )
        y_BTD = self.output(y_BTNH.reshape(B, T, D))
        return self.norm(x_BTD + dropout(y_BTD, self.dropout_rate, output_key))


def _attend_with_dropout(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    mask_B1TS: jax.Array,
    rate: float,
    key: jax.Array,
) -> jax.Array:
    """Attention with dropout on the probabilities, which the library function lacks."""
    scale = q_BTNH.shape[-1] ** -0.5
    logits_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH, preferred_element_type=jnp.float32)
    lowest = jnp.finfo(jnp.float32).min
    probs_BNTS = jax.nn.softmax(jnp.where(mask_B1TS, logits_BNTS * scale, lowest))
    probs_BNTS = dropout(probs_BNTS, rate, key).astype(v_BSNH.dtype)
    return jnp.einsum("BNTS,BSNH->BTNH", probs_BNTS, v_BSNH)
