"""Code shared by tasks: losses, metrics as sums, and the interface a training step needs."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

Batch = dict[str, jax.Array]


def cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns weighted sums of the cross entropy (nats) and of the correct predictions.

    Args:
      logits: float32 [B,N,K].
      labels: int32 [B,N], classes.
      weights: float32 [B,N]; 0 excludes an element.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    # Compares with the maximum because argmax is several times slower.
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    correct = label_logits >= jnp.max(logits, axis=-1)
    return jnp.sum(losses * weights), jnp.sum(correct * weights)


def squared_error(predictions: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the weighted sum of squared differences; all arguments are float32 [B]."""
    return jnp.sum(jnp.square(predictions - labels) * weights)


class Mean(NamedTuple):
    """A mean stored as its two sums, which can be added over batches and devices."""

    total: Any
    count: Any


Metrics = dict[str, Mean]


class MeanSums:
    """Running sums of named metrics, in float64 on the host."""

    def __init__(self, values: Mapping[str, tuple[float, float]] | None = None):
        """Starts from `values`, the `as_dict()` of another instance, or from nothing."""
        self._sums = {name: (total, count) for name, (total, count) in (values or {}).items()}

    def add(self, metrics: Mapping[str, Mean]) -> None:
        """Adds one step's metrics; waits until the device has computed them."""
        for name, mean in jax.device_get(dict(metrics)).items():
            total, count = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (total + float(mean.total), count + float(mean.count))

    def total(self, name: str) -> float:
        """Returns the sum called `name`; 0 if nothing was added."""
        return self._sums.get(name, (0.0, 0.0))[0]

    def means(self) -> dict[str, float]:
        """Returns every mean whose count is not 0."""
        return {name: total / count for name, (total, count) in self._sums.items() if count}

    def as_dict(self) -> dict[str, tuple[float, float]]:
        """Returns the sums, to be saved."""
        return dict(self._sums)


def row_work(mask_BT: jax.Array) -> Metrics:
    """Returns the work in a batch of rows of one text each, without padding, for `model_flops`.

    These are counts, not means: they are never divided.
    """
    lengths_B = jnp.sum(mask_BT, axis=-1, dtype=jnp.float32)
    return {
        "tokens": Mean(jnp.sum(lengths_B), 0.0),
        "attention_pairs": Mean(jnp.sum(jnp.square(lengths_B)), 0.0),
        "chunks": Mean(jnp.sum(lengths_B > 0, dtype=jnp.float32), 0.0),
    }


class Task(Protocol):
    """The interface a training step needs of a task; see also `finetuning.FinetuningTask`.

    Attributes:
      loss_terms: metric -> the weight of its mean in the loss.
    """

    loss_terms: Mapping[str, float]

    def loss_counts(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the number that each loss term is the mean of, over the whole batch."""
        ...

    def metrics(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> Metrics:
        """Returns losses and metrics as sums; dropout uses each row's key, if keys are given."""
        ...


def rows_of_parts(
    batch: Batch, dropout_keys_B: jax.Array | None
) -> tuple[dict[str, jax.Array], jax.Array | None]:
    """Returns the texts [B,C,T] of examples with C parts as rows [B·C,T], and a key for each."""
    if dropout_keys_B is not None:
        count = batch["input_ids"].shape[1]
        split = jax.vmap(lambda key: jax.random.split(key, count))
        dropout_keys_B = split(dropout_keys_B).reshape(-1)
    names = ("input_ids", "token_type_ids", "attention_mask")
    return {name: flat(batch[name]) for name in names}, dropout_keys_B


def flat(x_BCT: jax.Array) -> jax.Array:
    """Returns the rows of all parts, [B·C,T]."""
    return x_BCT.reshape(-1, x_BCT.shape[-1])
