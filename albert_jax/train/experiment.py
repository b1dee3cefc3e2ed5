"""A run that was checked and may begin: what the loop needs to know, whatever is learnt."""

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from albert_jax.checkpoints.state import StateSpec
from albert_jax.checkpoints.weights import Weights
from albert_jax.config import Config
from albert_jax.tasks.base import MeanSums

Batch = dict[str, Any]
TrainStep = Callable[[Any, Batch, Any], tuple[Any, Any]]


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
      baselines: metric -> a level worth comparing it with.
      start: weights that a new run begins with, if any.
      best: the metric by which the best checkpoint is kept; None keeps the newest alone.
      documents: numbers of those in the batch of a step (from 1), where there are documents.
      notes: lines to show when the run starts.
    """

    config: Config
    workdir: Path
    mesh: Mesh
    spec: StateSpec
    train_step: TrainStep
    train_batches: Callable[[int], Generator[Batch, None, None]]
    evaluate: Callable[[Any], dict[str, float]]
    flops: Callable[[MeanSums], float]
    baselines: dict[str, float]
    start: Weights | None
    best: str | None = None
    documents: Callable[[int], Sequence[int]] | None = None
    notes: tuple[str, ...] = ()
