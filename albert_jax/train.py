"""The training loop, and the command `python -m albert_jax.train`."""

import argparse
import itertools
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from albert_jax.checkpoint import Checkpoints
from albert_jax.config import Config
from albert_jax.config_file import load_config
from albert_jax.convert.weights import Weights
from albert_jax.data.loader import eval_batches, train_batches
from albert_jax.data.stored_rows import open_rows, read_manifest
from albert_jax.init_from import describe_start, read_start, start_with
from albert_jax.metrics import Sums, peak_flops
from albert_jax.model import is_stacked
from albert_jax.optimizer import make_optimizer, make_schedule
from albert_jax.pretrained import load
from albert_jax.run_dir import open_run
from albert_jax.run_log import Meter, RunLog, read_metrics
from albert_jax.sharding import global_batch, local_rows, make_mesh, validate_for_devices
from albert_jax.tasks.pretrain import Pretrain, cloze
from albert_jax.tokenizer import Tokenizer
from albert_jax.train_state import Setup, TrainState, set_up
from albert_jax.train_step import compile_steps

Batch = dict[str, Any]


class Plan(NamedTuple):
    """A run that was checked and may begin.

    Attributes:
      train_batches: global batches from the step (from 0) it is called with.
      eval_batches: global batches of the held-out split, always the same.
      baselines: metric -> a level worth comparing it with.
      start: weights that a new run begins with, if any.
    """

    config: Config
    workdir: Path
    mesh: Mesh
    task: Pretrain
    setup: Setup
    train_batches: Callable[[int], Generator[Batch, None, None]]
    eval_batches: Callable[[], Generator[Batch, None, None]]
    baselines: dict[str, float]
    start: Weights | None


def make_plan(config: Config, workdir: Path) -> Plan:
    """Checks all that can be checked before compute is spent, and opens the run directory.

    Raises:
      FileNotFoundError: where the data is missing.
      ValueError: where settings, data, devices and `workdir` do not fit together.
    """
    validate_for_devices(config, jax.device_count())
    manifest = read_manifest(config.data)
    if manifest["vocab_size"] != config.model.vocab_size:
        raise ValueError(
            f"config.model.vocab_size={config.model.vocab_size}, but the rows in "
            f"{config.data.path!r} have a vocabulary of {manifest['vocab_size']}; "
            f"set model.vocab_size={manifest['vocab_size']}"
        )
    mesh = make_mesh(config.mesh)
    task = Pretrain(config)
    share = config.model.share
    tx = make_optimizer(
        config.optimizer, config.train.num_steps, lambda path: is_stacked(path, share)
    )
    setup = set_up(task.build, tx, mesh)
    train_stream, eval_stream = _streams(config, mesh)
    tokenizer = Tokenizer(Path(config.data.path) / "tokenizer.model")
    start = read_start(config, tokenizer) if config.init_from else None
    if jax.process_index() == 0:
        open_run(workdir, config, manifest["fingerprint"], tokenizer.proto)
    baselines = {"mlm_loss": manifest["unigram_entropy"]}
    return Plan(config, workdir, mesh, task, setup, train_stream, eval_stream, baselines, start)


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


def train(plan: Plan) -> TrainState:
    """Trains to the last step, from the newest checkpoint of the run if there is one."""
    settings, is_first = plan.config.train, jax.process_index() == 0
    with ExitStack() as stack:
        stack.enter_context(jax.set_mesh(plan.mesh))
        checkpoints = stack.enter_context(
            Checkpoints(plan.workdir / "checkpoints", settings.keep_checkpoints)
        )
        saved_step = checkpoints.latest_step
        first_step = saved_step or 0
        log = stack.enter_context(
            RunLog(plan.workdir, first_step, settings.num_steps, active=is_first)
        )
        log.say(_describe(plan, first_step))
        init_key, dropout_key = jax.random.split(jax.random.key(settings.seed))
        if saved_step is not None:
            state, record = checkpoints.restore(saved_step, plan.setup.abstract_state)
        else:
            state, record = plan.setup.init(init_key), {}
            if plan.start is not None:
                log.say(f"{plan.config.init_from}: {describe_start(plan.start, state.params)}")
                state = state._replace(params=start_with(plan.start, state.params))
        train_step, eval_step = compile_steps(
            plan.task, plan.setup, plan.mesh, settings.grad_accum_steps
        )
        meter = _meter(plan, log, Sums(record.get("sums")))
        batches = stack.enter_context(closing(plan.train_batches(first_step)))
        for step, batch in enumerate(batches, first_step + 1):
            state, ratios = train_step(state, batch, dropout_key)
            meter.push(step, ratios)
            is_last = step == settings.num_steps
            if step % settings.eval_every == 0 or is_last:
                meter.pause()
                log.write(step, "validation", evaluate(plan, eval_step, state.params))
                log.draw(plan.baselines)
            if step % settings.checkpoint_every == 0 or is_last:
                meter.pause()
                checkpoints.save(step, state, {"sums": meter.sums.as_dict()})
    return state


def evaluate(plan: Plan, eval_step: Callable[[Any, Batch], Any], params: Any) -> dict[str, float]:
    """Means of the losses and metrics over the held-out split."""
    sums = Sums()
    for batch in plan.eval_batches():
        sums.add(eval_step(params, batch))
    means = sums.means()
    loss = sum(means.get(name, 0.0) for name in plan.task.loss_terms)
    return {"loss": loss} | means


def _meter(plan: Plan, log: RunLog, sums: Sums) -> Meter:
    config = plan.config
    peak = peak_flops(jax.devices()[0].device_kind, config.train.dtype)
    return Meter(
        log,
        config.train.log_every,
        make_schedule(config.optimizer, config.train.num_steps),
        plan.task.flops,
        peak * jax.device_count() if peak else None,
        sums,
    )


def _describe(plan: Plan, first_step: int) -> str:
    leaves = jax.tree.leaves(plan.setup.abstract_state.params)
    axes = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.shape.items())
    start = f"resumes after step {first_step}" if first_step else "starts"
    return (
        f"{plan.workdir}: {start}, to step {plan.config.train.num_steps}; "
        f"{sum(leaf.size for leaf in leaves) / 1e6:.1f} M parameters; "
        f"{jax.device_count()} × {jax.devices()[0].device_kind} as {axes}"
    )


def _report(plan: Plan) -> list[str]:
    """Lines that sum up a finished run: its loss against the baseline, masks it fills."""
    last = read_metrics(plan.workdir / "metrics.jsonl")[-1]
    model = load(plan.workdir)
    loss, entropy = last["mlm_loss"], plan.baselines["mlm_loss"]
    lines = [f"held-out MLM loss {loss:.3f} nats a piece; unigram entropy {entropy:.3f}"]
    rows = open_rows(plan.config.data.path, "validation")
    for text, answer in cloze((rows[i] for i in range(len(rows))), model.tokenizer, count=5):
        (candidates,) = model.fill_mask(text, top_k=4)
        shown = ", ".join(f"{c.piece.lstrip('▁')} {c.probability:.2f}" for c in candidates)
        lines.append(f"  {text}\n    [MASK] → {shown}   (was: {answer})")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.train",
        description="Trains; started again on its --workdir, goes on from the newest checkpoint.",
        epilog="Settings are overridden with --config.GROUP.KEY=VALUE.",
    )
    parser.add_argument("--config", required=True, help="configs/X.py, or configs/X.py:ARGUMENT")
    parser.add_argument("--workdir", required=True, type=Path, help="the run directory")
    args, overrides = parser.parse_known_args(argv)
    try:
        plan = make_plan(load_config(args.config, overrides), args.workdir)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    train(plan)
    if jax.process_index() == 0:
        print(*_report(plan), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
