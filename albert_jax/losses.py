"""Losses as pure functions: sums over a batch, to be divided by the whole batch's count."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Weighted sums of the cross entropy (nats) and of the right answers.

    Args:
      logits: float32 [B,N,K].
      labels: int32 [B,N], classes.
      weights: float32 [B,N]; 0 leaves an element out.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    # Not argmax, which is several times slower than a maximum.
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    correct = label_logits >= jnp.max(logits, axis=-1)
    return jnp.sum(losses * weights), jnp.sum(correct * weights)


def squared_error(predictions: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Weighted sum of squared differences; all arguments float32 [B]."""
    return jnp.sum(jnp.square(predictions - labels) * weights)
