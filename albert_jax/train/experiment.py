"""A run that was checked and may begin: what the loop needs to know, whatever is learnt."""

from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from albert_jax.checkpoints.state import StateSpec
from albert_jax.checkpoints.weights import Weights
from albert_jax.config import Config, ModelConfig
from albert_jax.model import Albert, Compute
from albert_jax.model.flops import model_flops
from albert_jax.model.heads import KINDS
from albert_jax.tasks.base import Batch, MeanSums, Metrics


class Experiment(NamedTuple):
    """What the loop needs.

    Attributes:
      config: all settings.
      workdir: the run directory, which exists.
      mesh: of the devices.
      spec: of the state.
      train_step: (state, batch, key) -> (state, metrics); the state given is donated.
      train_batches: global batches from the step (from 0) it is called with.
      evaluate: parameters -> metrics of the held-out examples, always the same.
      flops: model FLOPs of the training steps in some sums.
      curves: names of the metrics that curves.png shows.
      baselines: metric -> a level worth comparing it with.
      start: weights that a new run begins with, if any.
      best: the metric by which the best checkpoint is kept; None keeps the newest alone.
      documents: numbers of those in the batch of a step (from 1), where there are documents.
      notes: lines to show when the run starts.
      renamed: metric -> its name in runs of before November 2026, where it had another.
    """

    config: Config
    workdir: Path
    mesh: Mesh
    spec: StateSpec
    train_step: Callable[[Any, Batch, Any], tuple[Any, Metrics]]
    train_batches: Callable[[int], Generator[Batch, None, None]]
    evaluate: Callable[[Any], dict[str, float]]
    flops: Callable[[MeanSums], float]
    curves: tuple[str, ...]
    baselines: Mapping[str, float]
    start: Weights | None
    best: str | None = None
    documents: Callable[[int], Sequence[int]] | None = None
    notes: tuple[str, ...] = ()
    renamed: Mapping[str, str] = {}


def model_builder(
    config: Config, kind: str, num_labels: int = 0
) -> Callable[[jax.Array], nnx.Module]:
    """A function from a key to the model of a run, its parameters drawn from the key.

    Args:
      config: all settings.
      kind: what the model is for, a key of `KINDS`.
      num_labels: outputs of the classifier, where the kind has one.
    """

    def build(key: jax.Array) -> nnx.Module:
        return Albert(
            config.model,
            KINDS[kind],
            num_labels=num_labels,
            compute=Compute.of(config.train),
            rngs=nnx.Rngs(key),
        )

    return build


def flops_of_sums(config: ModelConfig) -> Callable[[MeanSums], float]:
    """A function from sums over steps to the model FLOPs of those steps."""

    def flops(sums: MeanSums) -> float:
        return model_flops(
            config,
            tokens=sums.total("tokens"),
            pairs=sums.total("attention_pairs"),
            predictions=sums.total("predictions"),
            chunks=sums.total("chunks"),
        )

    return flops
