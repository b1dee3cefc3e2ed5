"""Pretraining experiments: prepared rows, masked-LM and sentence-pair batches, two losses."""

import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from albert_jax.checkpoints.run_dir import open_run
from albert_jax.checkpoints.state import state_spec
from albert_jax.checkpoints.weights import provenance
from albert_jax.config import Config
from albert_jax.data.loader import Rows, eval_batches, train_batches
from albert_jax.data.row_reader import read_manifest
from albert_jax.data.sampling import documents_of_step
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.model.sharding import global_batch, local_rows, make_mesh, validate_for_devices
from albert_jax.tasks.base import Batch, MeanSums
from albert_jax.tasks.pretraining import Pretraining
from albert_jax.train.experiment import Experiment, flops_of_sums, model_builder
from albert_jax.train.initialization import read_start, wants_start
from albert_jax.train.optimizer import optimizer_of
from albert_jax.train.step import compile_steps

# The names of the next-sentence-prediction metrics in runs from before November 2026.
_RENAMED = {"nsp_loss": "sop_loss", "nsp_accuracy": "sop_accuracy"}


def pretraining_experiment(
    config: Config, workdir: Path, devices: Sequence[Any] | None = None
) -> Experiment:
    """Checks the settings and inputs before any compute is spent, and opens the run directory.

    See `train.make_experiment` for the arguments.

    Raises:
      FileNotFoundError: if the data is missing.
      ValueError: if settings, data, devices and `workdir` are inconsistent.
    """
    devices = jax.devices() if devices is None else devices
    validate_for_devices(config, len(devices))
    manifest = read_manifest(config.data)
    if manifest["vocab_size"] != config.model.vocab_size:
        raise ValueError(
            f"config.model.vocab_size={config.model.vocab_size}, but the rows in "
            f"{config.data.path!r} have a vocabulary of {manifest['vocab_size']}; "
            f"set model.vocab_size={manifest['vocab_size']}"
        )
    for split in ("train", "validation"):
        Rows(config.data, split)  # raises if files are damaged or contradict the manifest
    mesh, task = make_mesh(config.mesh, devices), Pretraining(config.data.sentence_objective)
    spec = state_spec(model_builder(config, task.kind), optimizer_of(config), mesh)
    train_step, eval_step = compile_steps(task, spec, mesh, config.train.grad_accum_steps)
    train_stream, eval_stream = _streams(config, mesh)

    def evaluate(params: Any) -> dict[str, float]:
        sums = MeanSums()
        for batch in eval_stream():
            sums.add(eval_step(params, batch))
        means = sums.means()
        return {"loss": sum(means.get(name, 0.0) for name in task.loss_terms)} | means

    tokenizer = Tokenizer(Path(config.data.path) / "tokenizer.model")
    start = read_start(config, tokenizer) if wants_start(config, workdir) else None
    if jax.process_index() == 0:
        origin = start and provenance(config.init_from, start)
        open_run(workdir, config, manifest["fingerprint"], tokenizer.proto, start=origin)
    accuracies = (name.replace("_loss", "_accuracy") for name in task.loss_terms)
    return Experiment(
        config=config,
        workdir=workdir,
        mesh=mesh,
        spec=spec,
        train_step=train_step,
        train_batches=train_stream,
        evaluate=evaluate,
        flops=flops_of_sums(config.model),
        curves=tuple(itertools.chain(*zip(task.loss_terms, accuracies, strict=True))),
        baselines={"mlm_loss": manifest["unigram_entropy"]},
        start=start,
        documents=partial(documents_of_step, config.data, config.train),
        renamed=_RENAMED if config.data.sentence_objective == "nsp" else {},
    )


def _streams(
    config: Config, mesh: Mesh
) -> tuple[
    Callable[[int], Generator[Batch, None, None]], Callable[[], Generator[Batch, None, None]]
]:
    data, train, batch_size = config.data, config.train, config.train.batch_size
    rows = local_rows(mesh, batch_size)

    def to_devices(local: Any, limit: int | None = None) -> Generator[Batch, None, None]:
        with closing(local):
            for part in itertools.islice(local, limit):
                yield global_batch(part, mesh, batch_size)

    def train_stream(first_step: int) -> Generator[Batch, None, None]:
        steps = train.num_steps - first_step
        return to_devices(train_batches(data, train.seed, batch_size, rows, first_step, steps))

    def eval_stream() -> Generator[Batch, None, None]:
        return to_devices(eval_batches(data, batch_size, rows), train.eval_batches or None)

    return train_stream, eval_stream
