"""Attention on TPUs as one kernel a pass: scores are never written to memory.

A program of the kernel holds some heads of one row: the T×W block of their queries, keys and
values, where W is a whole number of heads and of the 128 lanes of a TPU's registers. So the arrays
stay as the projections write them, [B,T,D], and nothing is transposed or padded. Rows are short
enough to need no running softmax: scores of a block of queries with all keys fit in fast memory.

Where a head is narrower than 128 lanes, its neighbours' lanes are set to zero instead of being cut
away, which would move lanes. The matrix unit, at least as wide, takes as long in either case.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P

_LANES = 128  # Source: Pallas guide for TPUs, tiling
# Scores in fast memory at once, 1 MiB in float32. Source: the schedules for v5e, v5p and v6e at T
# of 512, where a quarter of it takes a tenth to a third more instructions.
_SCORES = 512 * 512
# The longest rows, and the largest block, that compile for v5e and v5p.
_MAX_LENGTH = 2048
_MAX_BLOCK = 1024 * 384


def fits_tpu_attention(T: int, D: int, num_heads: int) -> bool:
    """Returns whether the kernel takes rows of T slots and D elements in so many heads."""
    block = T * _block_width(D, D // num_heads)
    return T % _LANES == 0 and T <= _MAX_LENGTH and block <= _MAX_BLOCK


def _block_width(D: int, head_size: int) -> int:
    W = math.lcm(head_size, _LANES)
    return W if D % W == 0 else D


def tpu_attention(
    qkv_BTD: Sequence[jax.Array],
    biases_D: Sequence[jax.Array],
    segment_ids: jax.Array,
    num_heads: int,
    interpret: bool = False,
) -> jax.Array:
    """Returns attention y_BTD within segments, with a float32 softmax.

    Each device computes the rows and heads that it has of `jax.set_mesh`'s mesh.

    Args:
      qkv_BTD: queries, keys and values before their biases; head n has the elements n·H to
        (n+1)·H of D, with H = D / num_heads.
      biases_D: their biases. The kernel adds them, because their gradients are sums over arrays
        that it has at hand; outside, these are passes of their own.
      segment_ids: int32 [B,T]; tokens attend to those of their own segment.
      num_heads: number of heads.
      interpret: whether to run on any device, slowly, for tests.

    Raises:
      ValueError: if the kernel does not take rows or heads of that size.
    """
    _, T, D = qkv_BTD[0].shape
    if not fits_tpu_attention(T, D, num_heads):
        raise ValueError(
            f"train.attention='tpu' takes rows of a multiple of {_LANES} slots up to "
            f"{_MAX_LENGTH}, and heads that divide {_LANES} or are divided by it; got rows of {T} "
            f"and {num_heads} heads of {D // num_heads}; use train.attention='auto'"
        )
    attend = partial(_attend, D // num_heads, interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.auto_axes and mesh.size > 1:  # XLA cannot divide a kernel among devices
        rows, heads = P(("data", "fsdp")), P(("data", "fsdp"), None, "tensor")
        attend = jax.shard_map(
            attend, in_specs=(rows, heads, P("tensor")), out_specs=heads, check_vma=False
        )
    return attend(segment_ids, tuple(qkv_BTD), tuple(biases_D))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(
    head_size: int, interpret: bool, segment_ids: jax.Array, qkv_BTD: Any, biases_D: Any
) -> jax.Array:
    shape, blocks = jax.typeof(qkv_BTD[0]), _Blocks.of(qkv_BTD[0], head_size)
    return pl.pallas_call(
        partial(_forward, head_size=head_size),
        out_shape=jax.ShapeDtypeStruct(shape.shape, shape.dtype),
        grid=blocks.grid,
        in_specs=[blocks.segments, *[blocks.heads] * 3, *[blocks.bias] * 3],
        out_specs=blocks.heads,
        compiler_params=_PARALLEL,
        interpret=interpret,
        name="attention_forward",
    )(segment_ids[:, None], *qkv_BTD, *(bias_D[None] for bias_D in biases_D))


def _attend_forward(*args: Any) -> tuple[jax.Array, Any]:
    return _attend(*args), args[2:]


def _attend_backward(
    head_size: int, interpret: bool, kept: Any, grad_BTD: jax.Array
) -> tuple[Any, ...]:
    segment_ids, qkv_BTD, biases_D = kept
    B, _, D = grad_BTD.shape
    blocks = _Blocks.of(grad_BTD, head_size)
    grads = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in qkv_BTD]
    found = pl.pallas_call(
        partial(_backward, head_size=head_size),
        out_shape=[*grads, *[jax.ShapeDtypeStruct((B, 1, D), jnp.float32)] * 3],
        grid=blocks.grid,
        in_specs=[blocks.segments, *[blocks.heads] * 3, *[blocks.bias] * 3, blocks.heads],
        out_specs=[*[blocks.heads] * 3, *[blocks.sums] * 3],
        compiler_params=_PARALLEL,
        interpret=interpret,
        name="attention_backward",
    )(segment_ids[:, None], *qkv_BTD, *(bias_D[None] for bias_D in biases_D), grad_BTD)
    bias_grads = [
        jnp.sum(sums_B1D, (0, 1)).astype(bias_D.dtype)
        for sums_B1D, bias_D in zip(found[3:], biases_D, strict=True)
    ]
    return None, tuple(found[:3]), tuple(bias_grads)


_attend.defvjp(_attend_forward, _attend_backward)

_PARALLEL = pltpu.CompilerParams(
    dimension_semantics=("parallel", "parallel"), vmem_limit_bytes=64 * 2**20
)


class _Blocks(NamedTuple):
    """The grid, rows by blocks of heads, and what a program has of each kind of array."""

    grid: tuple[int, int]
    heads: pl.BlockSpec  # of [B,T,D]
    bias: pl.BlockSpec  # of [1,D]
    sums: pl.BlockSpec  # of [B,1,D]
    segments: pl.BlockSpec  # of [B,1,T]

    @classmethod
    def of(cls, x_BTD: jax.Array, head_size: int) -> "_Blocks":
        B, T, D = x_BTD.shape
        W = _block_width(D, head_size)
        return cls(
            (B, D // W),
            pl.BlockSpec((None, T, W), lambda row, block: (row, 0, block)),
            pl.BlockSpec((1, W), lambda row, block: (0, block)),
            pl.BlockSpec((None, 1, W), lambda row, block: (row, 0, block)),
            pl.BlockSpec((None, 1, T), lambda row, block: (row, 0, 0)),
        )


def _forward(segment_ref: Any, *refs: Any, head_size: int) -> None:
    q_ref, k_ref, v_ref, *bias_refs, y_ref = refs
    T, W = q_ref.shape
    q_bias, k_bias, v_bias = (ref[...] for ref in bias_refs)
    k, v = k_ref[...] + k_bias, v_ref[...] + v_bias
    for queries in _query_blocks(T):
        mask_bias, q = _mask_bias(segment_ref, queries), q_ref[queries] + q_bias
        y = jnp.zeros(q.shape, jnp.float32)
        for only in _heads(W, head_size):
            weights, inverse = _weights(only(q), k, mask_bias, head_size)
            y += only(_product(weights.astype(v.dtype), v, 1, 0) * inverse)
        y_ref[queries] = y.astype(y_ref.dtype)


def _backward(segment_ref: Any, *refs: Any, head_size: int) -> None:
    q_ref, k_ref, v_ref, *bias_refs, grad_ref = refs[:7]
    *grad_refs, dq_sum_ref, dk_sum_ref, dv_sum_ref = refs[7:]
    dq_ref, dk_ref, dv_ref = grad_refs
    T, W = q_ref.shape
    q_bias, k_bias, v_bias = (ref[...] for ref in bias_refs)
    k, v = k_ref[...] + k_bias, v_ref[...] + v_bias
    dk = dv = jnp.zeros((T, W), jnp.float32)
    dq_sum = jnp.zeros((1, W), jnp.float32)
    for queries in _query_blocks(T):
        mask_bias, q = _mask_bias(segment_ref, queries), q_ref[queries] + q_bias
        grad, dq = grad_ref[queries], jnp.zeros(q.shape, jnp.float32)
        for only in _heads(W, head_size):
            own_q, own_grad = only(q), only(grad)
            weights, inverse = _weights(own_q, k, mask_bias, head_size)
            probs = weights * inverse
            dv += _product(probs.astype(v.dtype), own_grad, 0, 0)
            dprobs = _product(own_grad, v, 1, 1)
            dscores = probs * (dprobs - jnp.sum(probs * dprobs, -1, keepdims=True))
            dscores = (dscores * head_size**-0.5).astype(q.dtype)
            dk += _product(dscores, own_q, 0, 0)
            dq += only(_product(dscores, k, 1, 0))
        dq_ref[queries] = dq.astype(dq_ref.dtype)
        dq_sum += jnp.sum(dq, 0, keepdims=True)
    dk_ref[...] = dk.astype(dk_ref.dtype)
    dv_ref[...] = dv.astype(dv_ref.dtype)
    dq_sum_ref[...] = dq_sum
    dk_sum_ref[...] = jnp.sum(dk, 0, keepdims=True)
    dv_sum_ref[...] = jnp.sum(dv, 0, keepdims=True)


def _query_blocks(T: int) -> Iterator[slice]:
    """Slices of the queries whose scores with all keys are in fast memory at once."""
    size = min(T, max(_LANES, _SCORES // T))
    return (slice(begin, begin + size) for begin in range(0, T, size))


def _heads(W: int, H: int) -> Iterator[Callable[[jax.Array], jax.Array]]:
    """For each head of a block, sets the lanes of x [...,W] that belong to others to zero."""
    lane = jax.lax.broadcasted_iota(jnp.int32, (1, W), 1)

    def only(head: int, x: jax.Array) -> jax.Array:
        own = (lane >= head * H) & (lane < (head + 1) * H)
        return x if W == H else jnp.where(own, x, jnp.zeros_like(x))

    return (partial(only, head) for head in range(W // H))


def _mask_bias(segment_ref: Any, queries: slice) -> jax.Array:
    """Returns float32 [queries, T]: 0 where query and key have the same segment, else very low."""
    keys_1T = segment_ref[...].astype(jnp.float32)
    queries_1Q = segment_ref[:, queries].astype(jnp.float32)
    # Turned as whole registers, since a single column is not one.
    queries_Q1 = jnp.broadcast_to(queries_1Q, (_LANES, queries_1Q.shape[1])).T[:, :1]
    return jnp.where(queries_Q1 == keys_1T, 0.0, jnp.finfo(jnp.float32).min)


def _weights(
    q: jax.Array, k: jax.Array, mask_bias: jax.Array, head_size: int
) -> tuple[jax.Array, jax.Array]:
    """Returns float32 exp(scores - maximum), and one over their sums [queries, 1]."""
    # As powers of two, which is what the hardware has.
    scores = _product(q, k, 1, 1) * (head_size**-0.5 * math.log2(math.e)) + mask_bias
    weights = jnp.exp2(scores - jnp.max(scores, -1, keepdims=True))
    return weights, 1 / jnp.sum(weights, -1, keepdims=True)


def _product(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    """Returns the float32 product of two matrices, summed over one axis of each."""
    return jax.lax.dot_general(
        x, y, (((x_axis,), (y_axis,)), ((), ())), preferred_element_type=jnp.float32
    )
