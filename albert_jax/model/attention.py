"""Multi-head attention with its residual and norm."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from albert_jax.config import ModelConfig
from albert_jax.config.choices import one_of
from albert_jax.model.custom_gradients import softmax
from albert_jax.model.layers import KEPT, Compute, Dense, LayerNorm, dropout, split_keys
from albert_jax.model.sharding import target_device
from albert_jax.model.tpu_attention import fits_tpu_attention, tpu_attention

KINDS = ("auto", "xla", "cudnn", "tpu")  # what `train.attention` may be


class Segments(NamedTuple):
    """The chunk of each token (int32), and a mask that is true for a query and key of the same.

    Padding (segment 0) attends to padding, so that no softmax is over an empty set.
    """

    ids: jax.Array  # [B,T]
    mask: jax.Array  # [B,1,T,S]

    @classmethod
    def of(cls, ids_BT: jax.Array) -> "Segments":
        """Returns both, the mask computed once for all layers."""
        return cls(ids_BT, (ids_BT[:, :, None] == ids_BT[:, None, :])[:, None])


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

    @jax.named_scope("attention")
    def __call__(
        self, x_BTD: jax.Array, segments: Segments, dropout_keys_B: jax.Array | None
    ) -> jax.Array:
        """Maps x_BTD to x_BTD; dropout is on if `dropout_keys_B` are given."""
        probs_keys, output_keys = split_keys(dropout_keys_B, 2)
        projections = self.query, self.key, self.value
        if probs_keys is not None and self.probs_dropout_rate > 0:
            kind = "xla"  # the others have no dropout
        else:
            kind = implementation(self.kind, x_BTD, self.num_heads)
        if kind == "tpu":
            products = [project.product(x_BTD) for project in projections]
            biases = [project.bias[...].astype(x_BTD.dtype) for project in projections]
            y_BTD = tpu_attention(products, biases, segments.ids, self.num_heads)
        else:
            qkv_BTD = [project(x_BTD) for project in projections]
            y_BTD = self._by_heads(kind, qkv_BTD, segments.mask, probs_keys)
        return self._add(x_BTD, y_BTD, output_keys)

    def keys_values(self, x_BSD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the keys k_BSD and values v_BSD of x_BSD, for `attend_to`."""
        return self.key(x_BSD), self.value(x_BSD)

    @jax.named_scope("attention")
    def attend_to(
        self,
        x_BTD: jax.Array,
        keys_values: tuple[jax.Array, jax.Array],
        mask_B1TS: jax.Array,
        dropout_keys_B: jax.Array | None,
    ) -> jax.Array:
        """Maps x_BTD to x_BTD by attention to given keys and values, of this or another sequence.

        Args:
          x_BTD: the residual stream.
          keys_values: k_BSD and v_BSD.
          mask_B1TS: bool, which of them each position sees; axes of size 1 are broadcast.
          dropout_keys_B: one key per row; None for no dropout.
        """
        probs_keys, output_keys = split_keys(dropout_keys_B, 2)
        kind = implementation(self.kind, x_BTD, self.num_heads)
        if kind == "tpu" or (probs_keys is not None and self.probs_dropout_rate > 0):
            kind = "xla"  # the kernel for TPUs is for self-attention within segments
        y_BTD = self._by_heads(kind, [self.query(x_BTD), *keys_values], mask_B1TS, probs_keys)
        return self._add(x_BTD, y_BTD, output_keys)

    def _add(self, x_BTD: jax.Array, y_BTD: jax.Array, keys_B: jax.Array | None) -> jax.Array:
        """Returns the norm of x and the projected attention y."""
        y_BTD = self.output(checkpoint_name(y_BTD, KEPT))
        return self.norm(x_BTD + dropout(y_BTD, self.dropout_rate, keys_B))

    def _by_heads(
        self,
        kind: str,
        qkv_BTD: list[jax.Array],
        mask_B1TS: jax.Array,
        dropout_keys_B: jax.Array | None,
    ) -> jax.Array:
        """Returns y_BTD by a function that has the heads on an axis of their own."""
        B, T, D = qkv_BTD[0].shape
        q_BTNH, k_BSNH, v_BSNH = (
            x.reshape(B, -1, self.num_heads, D // self.num_heads) for x in qkv_BTD
        )
        if kind == "cudnn":
            scale = q_BTNH.shape[-1] ** -0.5
            y_BTNH = jax.nn.dot_product_attention(
                q_BTNH, k_BSNH, v_BSNH, mask=mask_B1TS, scale=scale, implementation="cudnn"
            )
        else:
            y_BTNH = attend(
                q_BTNH, k_BSNH, v_BSNH, mask_B1TS, self.probs_dropout_rate, dropout_keys_B
            )
        return y_BTNH.reshape(B, T, D)


def dropout_note(kind: str, rate: float, platform: str) -> str | None:
    """Returns what to tell the user whose dropout keeps attention from the fast kernels."""
    if rate == 0 or platform == "cpu" or kind == "xla":
        return None
    return (
        f"model.attention_probs_dropout_prob={rate}: the attention kernels have no dropout, so "
        "training writes every head's scores to memory; 0 is faster, as in ALBERT v2"
    )


def implementation(kind: str, x_BTD: jax.Array, num_heads: int) -> str:
    """Returns what `kind` is for x_BTD; `auto` is the fastest that the devices support."""
    if kind != "auto":
        return kind
    device = target_device()
    _, T, D = x_BTD.shape
    head_size = D // num_heads
    is_half = x_BTD.dtype.itemsize == 2
    # Source: cuDNN's support matrix for flash attention.
    if device.device_kind.startswith("NVIDIA") and is_half and head_size % 8 == 0:
        return "cudnn" if head_size <= 128 else "xla"
    # In float32, XLA multiplies in one bfloat16 pass on a TPU, and the kernel would in several.
    if device.platform == "tpu" and is_half and fits_tpu_attention(T, D, num_heads):
        return "tpu"
    return "xla"


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
