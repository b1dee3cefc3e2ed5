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
from albert_jax.config.phases import Phase, joint_fingerprint, phase_at, phases_of
from albert_jax.data.loader import Rows, eval_batches, train_batches
from albert_jax.data.row_reader import read_manifest
from albert_jax.data.sampling import documents_of_step
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.model.sharding import global_batch, local_rows, make_mesh, validate_for_devices
from albert_jax.tasks.base import Batch, MeanSums
from albert_jax.tasks.pretraining import Pretraining
from albert_jax.train.experiment import Experiment, Seam, flops_of_sums, model_builder
from albert_jax.train.initialization import SCRATCH, read_start, wants_start
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
    phases = phases_of(config.data, config.train)
    manifests = _checked_manifests(phases, config.model.vocab_size)
    mesh = make_mesh(config.mesh, devices)
    task = Pretraining(config.data.sentence_objective, config.data.sentence_weight)
    spec = state_spec(model_builder(config, task.kind), optimizer_of(config), mesh)
    train_step, eval_step = compile_steps(task, spec, mesh, config.train.grad_accum_steps)
    train_stream, eval_stream = _streams(config, phases, mesh)

    def evaluate(params: Any, step: int) -> dict[str, float]:
        sums, phase = MeanSums(), phase_at(phases, step)
        for batch in eval_stream(phase):
            sums.add(eval_step(params, batch))
        means = sums.means()
        length = {"seq_len": phase.data.seq_len} if len(phases) > 1 else {}
        loss = sum(weight * means.get(name, 0.0) for name, weight in task.loss_terms.items())
        return {"loss": loss} | means | length

    tokenizer = load_tokenizer(config.data.path)
    start = read_start(config, tokenizer) if wants_start(config, workdir) else None
    if jax.process_index() == 0:
        origin = start and provenance(config.init_from, start)
        fingerprint = joint_fingerprint([manifest["fingerprint"] for manifest in manifests])
        open_run(workdir, config, fingerprint, tokenizer.vocabulary, start=origin)
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
        baselines={"mlm_loss": manifests[-1]["unigram_entropy"]},
        start=start,
        seams=_seams(phases, is_new=config.init_from in ("", SCRATCH)),
        documents=partial(documents_of_step, config.data, config.train),
        renamed=_RENAMED if config.data.sentence_objective == "nsp" else {},
    )


def _seams(phases: Sequence[Phase], is_new: bool) -> dict[int, Seam]:
    return {
        after.first_step + 1: Seam(_describe(after), before.data.seq_len if is_new else None)
        for before, after in itertools.pairwise(phases)
    }


def _describe(phase: Phase) -> str:
    rows = f"{phase.batch_size} rows of {phase.data.seq_len} a step"
    return f"step {phase.first_step + 1}: {rows} from here on"


def _checked_manifests(phases: Sequence[Phase], vocab_size: int) -> list[dict[str, Any]]:
    """Reads what each phase's rows say of themselves, and checks that it fits the settings."""
    last = phases[-1].data
    for phase in phases[:-1]:
        if not Path(phase.data.path).is_dir():
            lengths = " ".join(str(phase.data.seq_len) for phase in phases)
            raise FileNotFoundError(
                f"data.path {last.path!r} has no rows of {phase.data.seq_len} for data.phases; "
                f"prepare it with --seq_len {lengths}"
            )
    manifests = [read_manifest(phase.data) for phase in phases]
    for phase, manifest in zip(phases, manifests, strict=True):
        if manifest["vocab_size"] != vocab_size:
            raise ValueError(
                f"config.model.vocab_size={vocab_size}, but the rows in "
                f"{phase.data.path!r} have a vocabulary of {manifest['vocab_size']}; "
                f"set model.vocab_size={manifest['vocab_size']}"
            )
        if manifest["tokenizer_sha256"] != manifests[-1]["tokenizer_sha256"]:
            raise ValueError(
                f"data.path {phase.data.path!r}: its vocabulary is not that of {last.path!r}; "
                "prepare both in one call, with several --seq_len"
            )
        for split in ("train", "validation"):
            Rows(phase.data, split)  # raises if files are damaged or contradict the manifest
    return manifests


def _streams(
    config: Config, phases: Sequence[Phase], mesh: Mesh
) -> tuple[
    Callable[[int], Generator[Batch, None, None]], Callable[[Phase], Generator[Batch, None, None]]
]:
    train = config.train

    def to_devices(local: Any, batch_size: int, limit: int | None = None) -> Any:
        with closing(local):
            for part in itertools.islice(local, limit):
                yield global_batch(part, mesh, batch_size)

    def train_stream(first_step: int) -> Generator[Batch, None, None]:
        for phase in phases:
            if (done := max(first_step - phase.first_step, 0)) < phase.num_steps:
                size, left = phase.batch_size, phase.num_steps - done
                rows = local_rows(mesh, size)
                local = train_batches(phase.data, train.seed, size, rows, done, left)
                yield from to_devices(local, size)

    def eval_stream(phase: Phase) -> Generator[Batch, None, None]:
        size = phase.batch_size
        local = eval_batches(phase.data, size, local_rows(mesh, size))
        return to_devices(local, size, train.eval_batches or None)

    return train_stream, eval_stream
