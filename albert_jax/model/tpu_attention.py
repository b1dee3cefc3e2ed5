"""Attention on TPUs as one kernel a pass: scores are never written to memory.

A program of the kernel holds some heads of one row: the T×W block of their queries, keys and
values, where W is a whole number of heads and of the 128 lanes of a TPU's registers. So the arrays
stay as the projections write them, [B,T,D], and nothing is transposed or padded. Rows are short
enough to need no running softmax: scores of a block of queries with all keys fit in fast memory.

Where a head is narrower than 128 lanes, its neighbours' lanes are set to zero instead of being cut
away, which would move lanes: the matrix unit is as wide as the lanes in either case.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec as P

_LANES = 128  # Source: Pallas guide for TPUs, tiling
_SCORES = 256 * 512
_MAX_LENGTH = 2048


def fits_tpu_attention(T: int) -> bool:
    """Returns whether the kernel takes rows of T slots."""
    return T % _LANES == 0 and T <= _MAX_LENGTH


def tpu_attention(
    q_BTD: jax.Array,
    k_BSD: jax.Array,
    v_BSD: jax.Array,
    segment_ids: jax.Array,
    num_heads: int,
    interpret: bool = False,
) -> jax.Array:
    """Returns attention y_BTD within segments, with a float32 softmax.

    Each device computes the rows and heads that it has of `jax.set_mesh`'s mesh.

    Args:
      q_BTD: queries; head n has the elements n·H to (n+1)·H of D, with H = D / num_heads.
      k_BSD: keys, as many as queries.
      v_BSD: values.
      segment_ids: int32 [B,T]; tokens attend to those of their own segment.
      num_heads: number of heads.
      interpret: whether to run on any device, slowly, for tests.

    Raises:
      ValueError: if the kernel does not take rows of that length.
    """
    T = q_BTD.shape[1]
    if not fits_tpu_attention(T):
        raise ValueError(
            f"train.attention='tpu' takes rows of a multiple of {_LANES} slots up to "
            f"{_MAX_LENGTH}, got {T}; use train.attention='auto'"
        )
    attend = partial(_attend, head_size=q_BTD.shape[2] // num_heads, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not mesh.auto_axes or mesh.size == 1:
        return attend(q_BTD, k_BSD, v_BSD, segment_ids)
    # XLA cannot divide a kernel among devices.
    rows = ("data", "fsdp")
    split = jax.shard_map(
        attend,
        in_specs=(*[P(rows, None, "tensor")] * 3, P(rows)),
        out_specs=P(rows, None, "tensor"),
        check_vma=False,
    )
    return split(q_BTD, k_BSD, v_BSD, segment_ids)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(q: Any, k: Any, v: Any, segment_ids: Any, head_size: int, interpret: bool) -> Any:
    (y,) = _call(_forward, 1, (q, k, v), segment_ids, head_size, interpret)
    return y


def _attend_forward(q: Any, k: Any, v: Any, segment_ids: Any, *static: Any) -> tuple[Any, Any]:
    return _attend(q, k, v, segment_ids, *static), (q, k, v, segment_ids)


def _attend_backward(head_size: int, interpret: bool, kept: Any, grad: Any) -> tuple[Any, ...]:
    *qkv, segment_ids = kept
    grads = _call(_backward, 3, (*qkv, grad), segment_ids, head_size, interpret)
    return *grads, None


_attend.defvjp(_attend_forward, _attend_backward)


def _call(
    kernel: Any,
    outputs: int,
    arrays: tuple[jax.Array, ...],
    segment_ids: jax.Array,
    head_size: int,
    interpret: bool,
) -> list[jax.Array]:
    """Runs `kernel` on every row and block of heads; `arrays` and results are [B,T,D]."""
    B, T, D = arrays[0].shape
    W = math.lcm(head_size, _LANES)
    W = W if D % W == 0 else D
    heads = pl.BlockSpec((None, T, W), lambda row, block: (row, 0, block))
    segments = pl.BlockSpec((None, 1, T), lambda row, block: (row, 0, 0))
    products = 2 if outputs == 1 else 5
    size = arrays[0].dtype.itemsize
    return pl.pallas_call(
        partial(kernel, head_size=head_size),
        out_shape=[jax.ShapeDtypeStruct((B, T, D), arrays[0].dtype)] * outputs,
        grid=(B, D // W),
        in_specs=[segments, *[heads] * len(arrays)],
        out_specs=[heads] * outputs,
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        cost_estimate=pl.CostEstimate(
            flops=products * 2 * B * T * T * D,
            transcendentals=B * D // head_size * T * T,
            bytes_accessed=(len(arrays) + outputs) * B * T * D * size,
        ),
        interpret=interpret,
        name="attention_" + kernel.__name__.strip("_"),
    )(segment_ids[:, None, :], *arrays)


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


def _bias(segment_ref: Any, queries: slice) -> jax.Array:
    """Returns float32 [queries, T]: 0 where query and key have the same segment, else very low."""
    keys_1T = segment_ref[...].astype(jnp.float32)
    queries_1Q = segment_ref[:, queries].astype(jnp.float32)
    # Turned as whole registers, since a single column is not one.
    queries_Q1 = jnp.broadcast_to(queries_1Q, (_LANES, queries_1Q.shape[1])).T[:, :1]
    return jnp.where(queries_Q1 == keys_1T, 0.0, jnp.finfo(jnp.float32).min)


def _weights(
    q: jax.Array, k: jax.Array, bias: jax.Array, head_size: int
) -> tuple[jax.Array, jax.Array]:
    """Returns float32 exp(scores - maximum), and one over their sums [queries, 1]."""
    # As powers of two, which is what the hardware has.
    scores = _product(q, k, 1, 1) * (head_size**-0.5 * math.log2(math.e)) + bias
    weights = jnp.exp2(scores - jnp.max(scores, -1, keepdims=True))
    return weights, 1 / jnp.sum(weights, -1, keepdims=True)


def _product(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    """Returns the float32 product of two matrices, summed over one axis of each."""
    return jax.lax.dot_general(
        x, y, (((x_axis,), (y_axis,)), ((), ())), preferred_element_type=jnp.float32
    )


def _forward(
    segment_ref: Any, q_ref: Any, k_ref: Any, v_ref: Any, y_ref: Any, *, head_size: int
) -> None:
    T, W = q_ref.shape
    k, v = k_ref[...], v_ref[...]
    for queries in _query_blocks(T):
        bias, q, y = _bias(segment_ref, queries), q_ref[queries], 0.0
        for only in _heads(W, head_size):
            weights, inverse = _weights(only(q), k, bias, head_size)
            y += only(_product(weights.astype(v.dtype), v, 1, 0) * inverse)
        y_ref[queries] = y.astype(y_ref.dtype)


def _backward(
    segment_ref: Any,
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    grad_ref: Any,
    dq_ref: Any,
    dk_ref: Any,
    dv_ref: Any,
    *,
    head_size: int,
) -> None:
    T, W = q_ref.shape
    k, v = k_ref[...], v_ref[...]
    dk, dv = 0.0, 0.0
    for queries in _query_blocks(T):
        bias, q, grad, dq = (
            _bias(segment_ref, queries),
            q_ref[queries],
            grad_ref[queries],
            0.0,
        )
        for only in _heads(W, head_size):
            own_q, own_grad = only(q), only(grad)
            weights, inverse = _weights(own_q, k, bias, head_size)
            probs = weights * inverse
            dv += _product(probs.astype(v.dtype), own_grad, 0, 0)
            dprobs = _product(own_grad, v, 1, 1)
            dscores = probs * (dprobs - jnp.sum(probs * dprobs, -1, keepdims=True))
            dscores = (dscores * head_size**-0.5).astype(q.dtype)
            dk += _product(dscores, own_q, 0, 0)
            dq += only(_product(dscores, k, 1, 0))
        dq_ref[queries] = dq.astype(dq_ref.dtype)
    dk_ref[...] = dk.astype(dk_ref.dtype)
    dv_ref[...] = dv.astype(dv_ref.dtype)
