"""Functions with gradients of our own: those of autodiff to rounding, in less memory and time.

Autodiff keeps every step of a function for its gradient. A layer of base on 4 rows of 512 kept
403 MB so, of which it needs 160: the rest was written and read again for nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_vjp
def add_bias(x: jax.Array, bias_D: jax.Array) -> jax.Array:
    """x [...,D] + bias_D, with a gradient of the bias that is fast on a CPU too."""
    return x + _along_last(bias_D, x)


add_bias.defvjp(
    lambda x, bias_D: (add_bias(x, bias_D), None),
    lambda _, grad: (grad, _sum_rows(grad)),
)


@jax.custom_vjp
def product(x_ND: jax.Array, kernel_DF: jax.Array) -> jax.Array:
    """x_ND @ kernel_DF, with a gradient of the kernel that is fast on a CPU too."""
    return x_ND @ kernel_DF


def _product_gradients(
    operands: tuple[jax.Array, jax.Array], grad_NF: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x_ND, kernel_DF = operands
    # On a CPU one operand is transposed in memory, along with the computation of its elements:
    # the smaller one.
    if x_ND.shape[1] <= grad_NF.shape[1]:
        grad_DF = jnp.einsum("ND,NF->DF", x_ND, grad_NF)
    else:
        grad_DF = jnp.einsum("NF,ND->FD", grad_NF, x_ND).T
    return grad_NF @ kernel_DF.T, grad_DF


product.defvjp(lambda x_ND, kernel_DF: (product(x_ND, kernel_DF), (x_ND, kernel_DF)),
               _product_gradients)  # fmt: skip


def layer_normalize(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array, eps: float) -> jax.Array:
    """Layer norm of x [...,D] over D, computed and returned in float32.

    Keeps x and two numbers a row for the gradient.
    """
    return _normalized(x, scale_D, bias_D, eps)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalized(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array, eps: float) -> Any:
    return _normalize(x, scale_D, bias_D, eps)[0]


def _normalize(
    x: jax.Array, scale_D: jax.Array, bias_D: jax.Array, eps: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean = jnp.mean(x, -1, jnp.float32, keepdims=True)
    centred = x.astype(jnp.float32) - mean
    # Not E[x²] - E[x]², which loses digits.
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + eps)
    y = centred * inverse * _along_last(scale_D, x) + _along_last(bias_D, x)
    return y, (x, mean, inverse, scale_D)


def _normalize_gradients(
    eps: float, kept: tuple[jax.Array, ...], grad: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del eps
    x, mean, inverse, scale_D = kept
    normed = (x.astype(jnp.float32) - mean) * inverse
    scaled = grad * _along_last(scale_D, grad)
    # What shifts a row, or stretches it, changes nothing.
    shift = jnp.mean(scaled, -1, keepdims=True)
    stretch = jnp.mean(scaled * normed, -1, keepdims=True)
    grad_x = inverse * (scaled - shift - normed * stretch)
    return grad_x.astype(x.dtype), _sum_rows(grad * normed), _sum_rows(grad)


_normalized.defvjp(_normalize, _normalize_gradients)


@jax.custom_vjp
def softmax(logits: jax.Array) -> jax.Array:
    """Probabilities over the last axis; keeps them alone for the gradient."""
    return jax.nn.softmax(logits)


def _softmax_gradients(probs: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    return (probs * (grad - jnp.sum(probs * grad, -1, keepdims=True)),)


softmax.defvjp(lambda logits: (softmax(logits),) * 2, _softmax_gradients)


def keeping_slope(act: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The same elementwise function; its gradient keeps the slope alone."""

    @jax.custom_vjp
    def activate(x: jax.Array) -> jax.Array:
        return act(x)

    activate.defvjp(
        lambda x: jax.jvp(act, (x,), (jnp.ones_like(x),)),
        lambda slope, grad: (grad * slope,),
    )
    return activate


def _along_last(vector_D: jax.Array, x: jax.Array) -> jax.Array:
    """vector_D with the leading axes of x, each of size 1."""
    return vector_D[(None,) * (x.ndim - 1)]


def _sum_rows(grad: jax.Array) -> jax.Array:
    """The sum of grad [...,D] over all axes but the last."""

    def as_product(grad: jax.Array) -> jax.Array:
        grad_ND = grad.reshape(-1, grad.shape[-1])
        ones_N = jnp.ones(len(grad_ND), grad.dtype)
        sums_D = jnp.einsum("N,ND->D", ones_N, grad_ND, preferred_element_type=jnp.float32)
        return sums_D.astype(grad.dtype)

    # XLA's reduction over rows takes a CPU up to 15 times as long as the same sum as a product.
    return jax.lax.platform_dependent(
        grad, cpu=as_product, default=lambda grad: jnp.sum(grad, axis=range(grad.ndim - 1))
    )
