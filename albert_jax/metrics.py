"""Metrics: sums on the device, ratios on the host; model FLOPs and their peak."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from albert_jax.config import ModelConfig


class Ratio(NamedTuple):
    """A mean as its two sums, so that means add up over batches and devices."""

    total: Any
    count: Any


class Sums:
    """Running sums of named ratios, in float64 on the host."""

    def __init__(self, values: Mapping[str, tuple[float, float]] | None = None):
        """Starts from `values`, the `as_dict()` of another, or from nothing."""
        self._sums = {name: (total, count) for name, (total, count) in (values or {}).items()}

    def add(self, ratios: Mapping[str, Ratio]) -> None:
        """Adds one step's ratios; waits for the device to have computed them."""
        for name, ratio in jax.device_get(dict(ratios)).items():
            total, count = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (total + float(ratio.total), count + float(ratio.count))

    def total(self, name: str) -> float:
        """The sum called `name`; 0 where nothing was added."""
        return self._sums.get(name, (0.0, 0.0))[0]

    def means(self) -> dict[str, float]:
        """Every ratio of which something was counted."""
        return {name: total / count for name, (total, count) in self._sums.items() if count}

    def as_dict(self) -> dict[str, tuple[float, float]]:
        """The sums themselves, to be saved."""
        return dict(self._sums)


def row_work(mask_BT: jax.Array) -> dict[str, Ratio]:
    """What a batch of rows of one text each really holds, for `pretraining_flops`.

    These are counts, not means: nothing divides them.
    """
    lengths_B = jnp.sum(mask_BT, axis=-1, dtype=jnp.float32)
    return {
        "tokens": Ratio(jnp.sum(lengths_B), 0.0),
        "attention_pairs": Ratio(jnp.sum(jnp.square(lengths_B)), 0.0),
        "chunks": Ratio(jnp.sum(lengths_B > 0, dtype=jnp.float32), 0.0),
    }


def pretraining_flops(
    config: ModelConfig, tokens: float, pairs: float, predictions: float, chunks: float
) -> float:
    """Floating point operations of one training pass: forward, and backward twice that.

    Matrix products only, 2 operations a multiply-add; work on padding is not counted.

    Args:
      config: sizes.
      tokens: real tokens.
      pairs: attended (query, key) pairs, Σ over chunks of length².
      predictions: masked pieces.
      chunks: pooled chunks.
    """
    D, E, F, V = (
        config.hidden_size,
        config.embedding_size,
        config.intermediate_size,
        config.vocab_size,
    )
    layers = config.num_hidden_layers * config.inner_group_num
    encoder = layers * (tokens * (8 * D * D + 4 * D * F) + pairs * 4 * D)
    projection = 2 * E * D * tokens if config.has_projection else 0
    mlm = predictions * (2 * D * E + 2 * E * V)
    return 3 * (encoder + projection + mlm + chunks * 2 * D * D)


# Dense bfloat16 peak of one device, in FLOP/s. Source: the makers' data sheets.
_PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "TPU v3": 123e12 / 2,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Peak FLOP/s of one device for bfloat16 products; None where unknown."""
    if dtype != "bfloat16":
        return None
    names = [name for name in _PEAK_FLOPS if device_kind.startswith(name)]
    return _PEAK_FLOPS[max(names, key=len)] if names else None
