"""The experiment of a fine-tuning run: weights to begin with, examples, a task, its metrics."""

import dataclasses
import hashlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from albert_jax.checkpoints.read import read
from albert_jax.checkpoints.run_dir import open_run, read_run
from albert_jax.checkpoints.state import state_spec
from albert_jax.checkpoints.weights import Weights, provenance
from albert_jax.config import Config, config_from_dict
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.model import Albert, Compute, is_stacked
from albert_jax.model.flops import model_flops
from albert_jax.model.heads import KINDS
from albert_jax.model.sharding import (
    global_batch,
    local_rows,
    make_mesh,
    path_of,
    validate_for_devices,
)
from albert_jax.tasks.base import MeanSums
from albert_jax.tasks.batching import eval_batches, train_batches
from albert_jax.tasks.examples import TaskData
from albert_jax.tasks.features import Features, total_notes
from albert_jax.tasks.registry import make_task, read_task
from albert_jax.train.experiment import Batch, Experiment
from albert_jax.train.initialization import wants_start
from albert_jax.train.optimizer import make_optimizer
from albert_jax.train.step import compile_outputs, compile_steps

_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_PRETRAINED = ("embeddings", "encoder", "pooler")  # what `freeze_encoder` leaves as it is


class Split(NamedTuple):
    """Examples and their rows."""

    examples: list[Any]
    features: Features


def finetuning_experiment(
    config: Config, workdir: Path, devices: Sequence[Any] | None = None
) -> Experiment:
    """Checks all that can be checked before compute is spent, and opens the run directory.

    For the arguments see `train.make_experiment`.

    Raises:
      FileNotFoundError: where the examples or the weights to begin with are missing.
      ValueError: where settings, examples, weights, devices and `workdir` do not fit together.
    """
    if not config.init_from:
        raise ValueError(
            'config.init_from is empty: give the weights to begin with, or "scratch" to begin '
            "with random ones"
        )
    start = read(config.init_from) if wants_start(config, workdir) else None
    config, tokenizer = _resolve(config, start, workdir)
    devices = jax.devices() if devices is None else devices
    validate_for_devices(config, len(devices))
    data = read_task(config.task.name, config.task.data)
    task = make_task(config.task, data.labels)
    start = start and without_other_head(start, task)
    splits = _make_splits(data, task, tokenizer)
    mesh = make_mesh(config.mesh, devices)
    spec = state_spec(_builder(config, task), _optimizer(config), mesh)
    train_step, _ = compile_steps(task, spec, mesh, config.train.grad_accum_steps)
    outputs = compile_outputs(task.outputs, spec, mesh)

    def evaluate(params: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, split in splits.items():
            if name.startswith("validation"):
                rows = run_outputs(outputs, params, split.features, config, mesh)
                scores = task.score(rows, split.features, split.examples)
                prefix = name.removeprefix("validation").removeprefix("_matched").lstrip("_")
                found |= {f"{prefix}_{k}" if prefix else k: v for k, v in scores.items()}
        return found

    if jax.process_index() == 0:
        fingerprint = hashlib.sha256(repr((data.splits, data.labels)).encode()).hexdigest()
        origin = start and provenance(config.init_from, start)
        open_run(workdir, config, fingerprint, tokenizer.proto, task.kind, data.labels, origin)
    train_stream = _train_stream(config, splits["train"].features, mesh)
    return Experiment(
        config, workdir, mesh, spec, train_step, train_stream, evaluate, _flops(config), {},
        start, task.best, notes=tuple(_notes(data, splits)),
    )  # fmt: skip


def run_outputs(
    outputs: Callable[[Any, Batch], Any],
    params: Any,
    features: Features,
    config: Config,
    mesh: Mesh,
) -> list[dict[str, np.ndarray]]:
    """A model's outputs for each row, in order, without what padding says."""
    batch_size = config.train.batch_size
    local = local_rows(mesh, batch_size)
    found: list[Any] = [None] * len(features.rows)
    for members, batch in eval_batches(features.rows, batch_size, config.task.max_length):
        part = {name: array[local] for name, array in batch.items()}
        results = jax.device_get(outputs(params, global_batch(part, mesh, batch_size)))
        for position, member in enumerate(members):
            found[member] = {name: array[position] for name, array in results.items()}
    return found


def without_other_head(start: Weights, task: Any) -> Weights:
    """Weights without a head that was made for another task or for other classes."""
    own = {"classifier": task.num_labels, "span": 2}
    is_same = (start.kind, start.labels) == (task.kind, task.labels) and all(
        start.params[head]["bias"].size == size
        for head, size in own.items()
        if head in start.params
    )
    if is_same:
        return start
    params = {part: tree for part, tree in start.params.items() if part not in own}
    return start._replace(params=params)


def _resolve(config: Config, start: Weights | None, workdir: Path) -> tuple[Config, Tokenizer]:
    """The settings with the sizes of the model that the run begins or goes on with.

    Returns:
      Settings whose `model` differs from those sizes at most in dropout; its tokenizer.
    """
    if start is not None:
        model = start.config
        tokenizer = Tokenizer(config.init_from, _vocabulary(start, config))
    elif (workdir / "config.json").is_file():
        model, tokenizer = read_run(workdir).config.model, Tokenizer(workdir / "tokenizer.model")
    else:
        model = config.model
        if not config.task.tokenizer:
            raise ValueError(
                'config.task.tokenizer is empty: with init_from="scratch", give a SentencePiece '
                "model"
            )
        tokenizer = Tokenizer(config.task.tokenizer)
    dropout = {name: getattr(config.model, name) for name in _DROPOUT}
    config = dataclasses.replace(config, model=dataclasses.replace(model, **dropout))
    if tokenizer.vocab_size != config.model.vocab_size:
        raise ValueError(
            f"config.model.vocab_size={config.model.vocab_size}, but the vocabulary of "
            f"{tokenizer.path} has {tokenizer.vocab_size} pieces"
        )
    return config_from_dict(config.to_dict()), tokenizer


def _vocabulary(start: Weights, config: Config) -> bytes:
    if start.tokenizer is None:
        raise ValueError(
            f"config.init_from={config.init_from!r} came without a SentencePiece vocabulary; "
            "put its spiece.model beside it"
        )
    return start.tokenizer


def _make_splits(data: TaskData, task: Any, tokenizer: Tokenizer) -> dict[str, Split]:
    for needed in ("train", "validation"):
        if not any(name.startswith(needed) for name in data.splits):
            raise ValueError(f"config.task.data has no examples to use as {needed}")
    return {
        name: Split(examples, task.features(examples, tokenizer))
        for name, examples in data.splits.items()
        if name == "train" or name.startswith("validation")
    }


def _builder(config: Config, task: Any) -> Callable[[jax.Array], nnx.Module]:
    def build(key: jax.Array) -> nnx.Module:
        return Albert(
            config.model,
            KINDS[task.kind],
            num_labels=task.num_labels,
            compute=Compute.of(config.train),
            rngs=nnx.Rngs(key),
        )

    return build


def _optimizer(config: Config) -> optax.GradientTransformation:
    share = config.model.share
    tx = make_optimizer(
        config.optimizer, config.train.num_steps, lambda path: is_stacked(path, share)
    )
    if not config.task.freeze_encoder:
        return tx

    # Before, for the clipping; after, for the decay.
    return optax.chain(optax.stateless(_freeze), tx, optax.stateless(_freeze))


def _freeze(updates: Any, params: Any) -> Any:
    """Zeros in place of what would change the pretrained parts."""
    del params

    def update(key_path: tuple, leaf: jax.Array) -> jax.Array:
        is_frozen = path_of(key_path).partition("/")[0] in _PRETRAINED
        return jnp.zeros_like(leaf) if is_frozen else leaf

    return jax.tree_util.tree_map_with_path(update, updates)


def _train_stream(
    config: Config, features: Features, mesh: Mesh
) -> Callable[[int], Generator[Batch, None, None]]:
    train, max_length = config.train, config.task.max_length
    local = local_rows(mesh, train.batch_size)

    def stream(first_step: int) -> Generator[Batch, None, None]:
        steps = train.num_steps - first_step
        for batch in train_batches(
            features.rows, train.batch_size, max_length, train.seed, first_step, steps
        ):
            part = {name: array[local] for name, array in batch.items()}
            yield global_batch(part, mesh, train.batch_size)

    return stream


def _flops(config: Config) -> Callable[[MeanSums], float]:
    def flops(sums: MeanSums) -> float:
        return model_flops(
            config.model,
            tokens=sums.total("tokens"),
            pairs=sums.total("attention_pairs"),
            predictions=0,
            chunks=sums.total("chunks"),
        )

    return flops


def _notes(data: TaskData, splits: dict[str, Split]) -> Sequence[str]:
    sizes = ", ".join(f"{name} {len(split.examples):,}" for name, split in splits.items())
    cut = total_notes([split.features for split in splits.values()])
    counts = [f"{what}: {count:,}" for what, count in cut.items()]
    return [f"examples: {sizes}", *data.notes, *counts]
