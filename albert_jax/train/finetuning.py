"""Fine-tuning experiments: initial weights, examples, a task and its metrics."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from albert_jax.checkpoints.read import read
from albert_jax.checkpoints.run_dir import open_run, read_run
from albert_jax.checkpoints.state import StateSpec, state_spec
from albert_jax.checkpoints.weights import Weights, provenance
from albert_jax.config import Config, config_from_dict
from albert_jax.data.tokenizers import Tokenizer, Vocabulary, load_tokenizer, tokenizer_of
from albert_jax.model.sharding import (
    global_batch,
    local_rows,
    make_mesh,
    path_of,
    validate_for_devices,
)
from albert_jax.tasks.base import Batch
from albert_jax.tasks.batching import TokenBatches, outputs_of, train_batches
from albert_jax.tasks.examples import TaskData, compared_values, earlier_repr
from albert_jax.tasks.features import Features, total_notes
from albert_jax.tasks.finetuning import FinetuningTask
from albert_jax.tasks.registry import make_task, read_task
from albert_jax.train.experiment import Experiment, flops_of_sums, model_builder
from albert_jax.train.initialization import wants_start, with_decoder
from albert_jax.train.optimizer import optimizer_of
from albert_jax.train.step import compile_outputs, compile_steps

_DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_PRETRAINED = ("embeddings", "encoder", "pooler")  # what `freeze_encoder` keeps unchanged


class Split(NamedTuple):
    """The examples of a split and their rows."""

    examples: list[Any]
    features: Features


def finetuning_experiment(
    config: Config, workdir: Path, devices: Sequence[Any] | None = None
) -> Experiment:
    """Checks the settings and inputs before any compute is spent, and opens the run directory.

    See `train.make_experiment` for the arguments.

    Raises:
      FileNotFoundError: if the examples or the initial weights are missing.
      ValueError: if settings, examples, weights, devices and `workdir` are inconsistent.
    """
    if not config.init_from:
        raise ValueError(
            'config.init_from is empty: set it to the initial weights, or to "scratch" for '
            "random ones"
        )
    start = read(config.init_from) if wants_start(config, workdir) else None
    config, tokenizer = _resolve(config, start, workdir)
    devices = jax.devices() if devices is None else devices
    validate_for_devices(config, len(devices))
    data = read_task(config.task.name, config.task.data)
    task = make_task(config.task, data.labels)
    start = start and without_other_head(start, task)
    if start and config.task.translation.init_decoder and task.kind == "translation":
        start = with_decoder(start, config.model)
    splits = _make_splits(data, task, tokenizer)
    mesh = make_mesh(config.mesh, devices)
    batches = _token_batches(config, splits["train"].features, mesh)
    rows, size = len(splits["train"].features.rows), config.train.batch_size
    config = _with_steps(config, batches.per_epoch if batches else rows / size)
    spec = state_spec(model_builder(config, task.kind, task.num_labels), _optimizer(config), mesh)
    train_step, _ = compile_steps(task, spec, mesh, config.train.grad_accum_steps)
    if jax.process_index() == 0:
        _open(config, workdir, task, data, tokenizer, start)
    validation = {name: split for name, split in splits.items() if name.startswith("validation")}
    names = task.reported(next(iter(validation.values())).examples)
    shown = [f"{_prefix(split)}{name}" for split in validation for name in names]
    return Experiment(
        config=config,
        workdir=workdir,
        mesh=mesh,
        spec=spec,
        train_step=train_step,
        train_batches=_train_stream(config, splits["train"].features, batches, mesh),
        evaluate=_evaluation(config, task, validation, spec, mesh),
        flops=flops_of_sums(config.model),
        curves=("task_loss", "task_accuracy", *shown),
        baselines={},
        start=start,
        best=names[0],
        notes=tuple(_notes(data, splits)),
    )


def _open(
    config: Config,
    workdir: Path,
    task: FinetuningTask,
    data: TaskData,
    tokenizer: Tokenizer,
    start: Weights | None,
) -> None:
    """Opens the run directory."""
    open_run(
        workdir,
        config,
        fingerprint(data),
        tokenizer.vocabulary,
        task.kind,
        data.labels,
        start and provenance(config.init_from, start),
        earlier_fingerprint=earlier_fingerprint(data),
    )


def fingerprint(data: TaskData) -> str:
    """Returns a hex digest of all examples' values and the classes, free of this package's names.

    Renaming the package's classes or fields therefore does not change it.
    """
    splits = {name: list(map(compared_values, data.splits[name])) for name in data.splits}
    values = json.dumps([splits, data.labels], default=lambda number: number.item())
    return hashlib.sha256(values.encode()).hexdigest()


def earlier_fingerprint(data: TaskData) -> str:
    """Returns the fingerprint of runs from before November 2026: a digest of Python's `repr`."""
    splits = (f"{name!r}: {earlier_repr(examples)}" for name, examples in data.splits.items())
    shown = f"({{{', '.join(splits)}}}, {data.labels!r})"
    return hashlib.sha256(shown.encode()).hexdigest()


def _prefix(split: str) -> str:
    """Returns the prefix of a validation split's metrics: empty except for MNLI's second split."""
    name = split.removeprefix("validation").removeprefix("_matched").lstrip("_")
    return f"{name}_" if name else ""


def _evaluation(
    config: Config, task: FinetuningTask, splits: dict[str, Split], spec: StateSpec, mesh: Mesh
) -> Callable[[Any, int], dict[str, float]]:
    """Returns a function from parameters and step to the metrics on the validation splits."""
    outputs, batch_size = compile_outputs(task.outputs, spec, mesh), config.train.batch_size
    local = local_rows(mesh, batch_size)

    def evaluate(params: Any, step: int) -> dict[str, float]:
        del step  # the examples are always the same

        def run(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            part = {name: array[local] for name, array in batch.items()}
            return jax.device_get(outputs(params, global_batch(part, mesh, batch_size)))

        found: dict[str, float] = {}
        for name, split in splits.items():
            rows = outputs_of(split.features.rows, batch_size, config.task.max_length, run)
            scores = task.score(rows, split.features, split.examples)
            found |= {f"{_prefix(name)}{k}": v for k, v in scores.items()}
        return found

    return evaluate


def without_other_head(start: Weights, task: FinetuningTask) -> Weights:
    """Returns the weights without any head made for another task or for other classes."""
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
    """Returns the settings with the model sizes that the run starts from or resumes with.

    Returns:
      Settings whose `model` differs from that model's at most in dropout and in a decoder that it
      does not have yet, and its tokenizer.
    """
    if start is not None:
        model = start.config
        tokenizer = tokenizer_of(_vocabulary(start, config), config.init_from)
    elif (workdir / "config.json").is_file():
        model, tokenizer = read_run(workdir).config.model, load_tokenizer(workdir)
    else:
        model = config.model
        if not config.task.tokenizer:
            raise ValueError(
                'config.task.tokenizer is empty: with init_from="scratch", set it to a '
                "SentencePiece model or a WordPiece vocab.txt"
            )
        tokenizer = load_tokenizer(config.task.tokenizer)
    kept = {name: getattr(config.model, name) for name in _DROPOUT}
    if start is not None and start.kind != "translation":
        kept["decoder"] = config.model.decoder  # of a decoder to come
    config = dataclasses.replace(config, model=dataclasses.replace(model, **kept))
    if tokenizer.vocab_size > config.model.vocab_size:
        raise ValueError(
            f"config.model.vocab_size={config.model.vocab_size}, but the vocabulary of "
            f"{tokenizer.path} has {tokenizer.vocab_size} tokens; set "
            f"model.vocab_size={tokenizer.vocab_size}"
        )
    return config_from_dict(config.to_dict()), tokenizer


def _vocabulary(start: Weights, config: Config) -> Vocabulary:
    if start.vocabulary is None:
        raise ValueError(
            f"config.init_from={config.init_from!r} came without a vocabulary; put its "
            "spiece.model or vocab.txt next to it"
        )
    return start.vocabulary


def _with_steps(config: Config, per_epoch: float) -> Config:
    """Returns the settings with the steps that `train.num_epochs` comes to, if it is set."""
    train, optimizer = config.train, config.optimizer
    if not train.num_epochs:
        return config
    steps = max(1, math.ceil(train.num_epochs * per_epoch))
    tenth = math.ceil(steps / 10)
    train = dataclasses.replace(train, num_steps=steps, eval_every=tenth, checkpoint_every=tenth)
    warmup = min(round(optimizer.warmup_fraction * steps), steps - 1)
    optimizer = dataclasses.replace(optimizer, warmup_steps=warmup)
    return config_from_dict(
        dataclasses.replace(config, train=train, optimizer=optimizer).to_dict()
    )


def _make_splits(data: TaskData, task: FinetuningTask, tokenizer: Tokenizer) -> dict[str, Split]:
    for needed in ("train", "validation"):
        if not any(name.startswith(needed) for name in data.splits):
            raise ValueError(f"config.task.data has no {needed} examples; add a {needed} split")
    return {
        name: Split(
            examples,
            (task.train_features if name == "train" else task.features)(examples, tokenizer),
        )
        for name, examples in data.splits.items()
        if name == "train" or name.startswith("validation")
    }


def _optimizer(config: Config) -> optax.GradientTransformation:
    tx = optimizer_of(config)
    if not config.task.freeze_encoder:
        return tx

    freeze = _freeze(config.task.freeze_steps)
    if config.task.freeze_steps:  # the moments are warm when the weights are released
        return optax.chain(tx, freeze)
    # Freezing before the optimizer keeps frozen gradients out of the clipping norm; freezing
    # after it undoes the weight decay.
    return optax.chain(freeze, tx, freeze)


def _freeze(steps: int) -> optax.GradientTransformation:
    """Returns zeros in place of the updates of the pretrained parts, for `steps` (0: always)."""

    def without(updates: Any) -> Any:
        def update(key_path: tuple, leaf: jax.Array) -> jax.Array:
            is_frozen = path_of(key_path).partition("/")[0] in _PRETRAINED
            return jnp.zeros_like(leaf) if is_frozen else leaf

        return jax.tree_util.tree_map_with_path(update, updates)

    if not steps:
        return optax.stateless(lambda updates, params: without(updates))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        frozen = without(updates)
        found = jax.tree.map(lambda f, u: jnp.where(state < steps, f, u), frozen, updates)
        return found, state + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def _token_batches(config: Config, features: Features, mesh: Mesh) -> TokenBatches | None:
    """Returns the batches by tokens, if the settings ask for them."""
    if not (train := config.train).batch_tokens:
        return None
    multiple = mesh.shape["data"] * mesh.shape["fsdp"] * train.grad_accum_steps
    sizes = train.batch_tokens, config.task.max_length, multiple
    return TokenBatches(features.rows, *sizes, train.seed)


def _train_stream(
    config: Config, features: Features, batches: TokenBatches | None, mesh: Mesh
) -> Callable[[int], Generator[Batch, None, None]]:
    train, max_length = config.train, config.task.max_length

    def stream(first_step: int) -> Generator[Batch, None, None]:
        steps = train.num_steps - first_step
        for batch in (
            batches.stream(first_step, steps)
            if batches
            else train_batches(
                features.rows, train.batch_size, max_length, train.seed, first_step, steps
            )
        ):
            size = len(batch["weights"])
            local = local_rows(mesh, size)
            part = {name: array[local] for name, array in batch.items()}
            yield global_batch(part, mesh, size)

    return stream


def _notes(data: TaskData, splits: dict[str, Split]) -> Sequence[str]:
    sizes = ", ".join(f"{name} {len(split.examples):,}" for name, split in splits.items())
    cut = total_notes([split.features for split in splits.values()])
    counts = [f"{what}: {count:,}" for what, count in cut.items()]
    return [f"examples: {sizes}", *data.notes, *counts]
