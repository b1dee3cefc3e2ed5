"""A checked run, ready to train: everything the loop needs, for any task."""

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
from albert_jax.model.flops import decoder_flops, model_flops
from albert_jax.model.heads import KINDS
from albert_jax.tasks.base import Batch, MeanSums


class Seam(NamedTuple):
    """What changes where rows become longer.

    Attributes:
      line: what to log.
      known_positions: the number of positions trained so far, to be copied to those after them;
        None if all were trained in the run that this one starts from.
    """

    line: str
    known_positions: int | None


class Experiment(NamedTuple):
    """Everything the training loop needs.

    Attributes:
      config: all settings.
      workdir: the run directory, which exists.
      mesh: the device mesh.
      spec: the structure and sharding of the training state.
      train_step: jitted (state, batch, key) -> (state, metrics); the input state is donated.
      train_batches: first step (from 0) -> global batches from that step on.
      evaluate: (parameters, step) -> metrics on the held-out examples, the same ones every time;
        before a seam, on rows of that phase's length.
      flops: metric sums over training steps -> model FLOPs of those steps.
      curves: names of the metrics plotted in curves.png.
      baselines: metric -> a reference level to compare it with.
      start: the initial weights of a new run, if any.
      best: the metric that selects the best checkpoint to keep; None keeps only the newest.
      documents: step (from 1) -> numbers of the documents in its batch, if there are documents.
      notes: lines to log when the run starts.
      seams: first step of a later phase -> what changes in it.
      renamed: metric -> its name in runs from before November 2026, if it was different.
    """

    config: Config
    workdir: Path
    mesh: Mesh
    spec: StateSpec
    train_step: Any
    train_batches: Callable[[int], Generator[Batch, None, None]]
    evaluate: Callable[[Any, int], dict[str, float]]
    flops: Callable[[MeanSums], float]
    curves: tuple[str, ...]
    baselines: Mapping[str, float]
    start: Weights | None
    best: str | None = None
    documents: Callable[[int], Sequence[int]] | None = None
    notes: tuple[str, ...] = ()
    seams: Mapping[int, Seam] = {}
    renamed: Mapping[str, str] = {}


def model_builder(
    config: Config, kind: str, num_labels: int = 0
) -> Callable[[jax.Array], nnx.Module]:
    """Returns a function from a PRNG key to the run's model, randomly initialized from that key.

    Args:
      config: all settings.
      kind: the model's purpose, a key of `KINDS`.
      num_labels: outputs of the classifier, if the kind has one.
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
    """Returns a function from metric sums over steps to the model FLOPs of those steps."""

    def flops(sums: MeanSums) -> float:
        tokens = sums.total("tokens")
        encoder = model_flops(
            config,
            tokens=tokens,
            pairs=sums.total("attention_pairs"),
            predictions=sums.total("predictions"),
            chunks=sums.total("chunks"),
        )
        if not (targets := sums.total("target_tokens")):
            return encoder
        pairs, cross = sums.total("target_pairs"), sums.total("cross_pairs")
        return encoder + decoder_flops(config, targets, pairs, cross, tokens)

    return flops
