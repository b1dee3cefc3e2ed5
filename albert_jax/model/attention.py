"""Multi-head self-attention with its residual and norm."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from albert_jax.config import ModelConfig
from albert_jax.config.schema import one_of
from albert_jax.model.custom_gradients import softmax
from albert_jax.model.layers import KEPT, Compute, Dense, LayerNorm, dropout, split_keys

KINDS = ("auto", "xla", "cudnn")  # what `train.attention` may be


def segment_mask(segment_ids: jax.Array) -> jax.Array:
    """Returns bool [B,1,T,S], true where query and key belong to the same chunk.

    Padding (segment 0) attends to padding, so that no softmax is over an empty set.
    """
    return (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]


class Attention(nnx.Module):
    """`LN(x + output(attention(x)))`, with separate query, key and value parameters."""

    def __init__(self, config: ModelConfig, *, compute: Compute, rngs: nnx.Rngs):
        """Creates four D×D projections and the norm."""
        size, dtype = config.hidden_size, compute.dtype
        self.kind = one_of("train.attention", compute.attention, KINDS)
        self.num_heads = config.num_attention_heads
        self.dropout_rate = config.hidden_dropout_prob
        self.probs_dropout_rate = config.attention_probs_dropout_prob
        self.query = Dense(size, size, config, dtype, rngs)
        self.key = Dense(size, size, config, dtype, rngs)
        self.value = Dense(size, size, config, dtype, rngs)
        self.output = Dense(size, size, config, dtype, rngs)
        self.norm = LayerNorm(size, config, dtype)

    def __call__(
        self, x_BTD: jax.Array, mask_B1TS: jax.Array, dropout_keys_B: jax.Array | None
    ) -> jax.Array:
        """Maps x_BTD to x_BTD; dropout is on if `dropout_keys_B` are given."""
        B, T, D = x_BTD.shape
        x_ND = x_BTD.reshape(-1, D)  # the three projections keep this one array for the gradient
        probs_keys, output_keys = split_keys(dropout_keys_B, 2)

        def heads(project: Dense) -> jax.Array:
            return project(x_ND).reshape(B, T, self.num_heads, D // self.num_heads)

        q_BTNH, k_BSNH, v_BSNH = heads(self.query), heads(self.key), heads(self.value)
        rate = 0.0 if probs_keys is None else self.probs_dropout_rate
        if rate == 0.0 and _uses_cudnn(self.kind, q_BTNH):
            scale = q_BTNH.shape[-1] ** -0.5
            y_BTNH = jax.nn.dot_product_attention(
                q_BTNH, k_BSNH, v_BSNH, mask=mask_B1TS, scale=scale, implementation="cudnn"
            )
        else:
            y_BTNH = attend(q_BTNH, k_BSNH, v_BSNH, mask_B1TS, rate, probs_keys)
        y_BTD = self.output(checkpoint_name(y_BTNH, KEPT).reshape(B, T, D))
        return self.norm(x_BTD + dropout(y_BTD, self.dropout_rate, output_keys))


def _uses_cudnn(kind: str, q_BTNH: jax.Array) -> bool:
    """Returns whether to use cuDNN: it is requested, or is supported and faster."""
    if kind != "auto":
        return kind == "cudnn"
    # Source: cuDNN's support matrix for flash attention.
    fits = q_BTNH.dtype.itemsize == 2 and q_BTNH.shape[-1] % 8 == 0 and q_BTNH.shape[-1] <= 128
    return fits and jax.devices()[0].device_kind.startswith("NVIDIA")


def attend(
    q_BTNH: jax.Array,
    k_BSNH: jax.Array,
    v_BSNH: jax.Array,
    mask_B1TS: jax.Array,
    rate: float,
    dropout_keys_B: jax.Array | None,
) -> jax.Array:
    """Returns attention y_BTNH from plain products, with a float32 softmax and dropout on it.

    jax.nn.dot_product_attention has no dropout, and for each head keeps logits and mask for its
    gradient in addition to the probabilities.
    """
    logits_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH, preferred_element_type=jnp.float32)
    # The mask is added instead of used in a `where`, whose gradient would have to keep it.
    bias_B1TS = jnp.where(mask_B1TS, 0.0, jnp.finfo(jnp.float32).min)
    probs_BNTS = softmax(logits_BNTS * q_BTNH.shape[-1] ** -0.5 + bias_B1TS)
    probs_BNTS = dropout(probs_BNTS, rate, dropout_keys_B).astype(v_BSNH.dtype)
    return jnp.einsum("BNTS,BSNH->BTNH", probs_BNTS, v_BSNH)
