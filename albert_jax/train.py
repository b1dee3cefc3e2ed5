"""The training loop, and the command `python -m albert_jax.train`."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jax

from albert_jax.bad_steps import BadSteps
from albert_jax.checkpoint import Checkpoints, set_aside_damaged
from albert_jax.config import Config
from albert_jax.config_file import load_config
from albert_jax.data.stored_rows import DamagedRowsError, open_rows
from albert_jax.distributed import HELP, agreed, fatal_errors, joined, wait_for_all
from albert_jax.fine_tuning import plan_fine_tuning
from albert_jax.first_nan import first_nan
from albert_jax.init_from import describe_start, start_with
from albert_jax.loading import load
from albert_jax.metrics import Sums, peak_flops
from albert_jax.optimizer import make_schedule
from albert_jax.plan import Plan
from albert_jax.pretraining import plan_pretraining
from albert_jax.run_errors import RunError, hide_late_writes, told_in_a_line
from albert_jax.run_lock import locked
from albert_jax.run_log import Meter, RunLog, read_metrics
from albert_jax.seeds import run_seeds
from albert_jax.stopping import EXIT_CODE, StoppedError, StopRequests
from albert_jax.tasks.pretrain import cloze
from albert_jax.train_state import TrainState
from albert_jax.user_errors import USER_ERRORS, fail


def make_plan(config: Config, workdir: Path, devices: Sequence[Any] | None = None) -> Plan:
    """Checks all that can be checked before compute is spent, and opens the run directory.

    Args:
      config: all settings.
      workdir: the run directory, new or of the same run.
      devices: to run on; all by default.

    Raises:
      FileNotFoundError: where the data or the weights to begin with are missing.
      ValueError: where settings, data, devices and `workdir` do not fit together.
    """
    plan = plan_pretraining if config.task.name == "pretrain" else plan_fine_tuning
    with agreed():
        return plan(config, workdir, devices)


def train(plan: Plan) -> TrainState:
    """Trains to the last step, from the newest checkpoint of the run if there is one.

    Asked to stop (see `StopRequests`), it saves, and returns the state of an earlier step.

    Raises:
      RunError: where the run cannot go on.
    """
    settings, is_first = plan.config.train, jax.process_index() == 0
    with ExitStack() as stack:
        stack.enter_context(told_in_a_line(plan.workdir, DamagedRowsError))
        lines = _take(plan.workdir, stack)
        stack.enter_context(jax.set_mesh(plan.mesh))
        checkpoints = stack.enter_context(
            Checkpoints(plan.workdir / "checkpoints", settings.keep_checkpoints, best=plan.best)
        )
        saved_step = checkpoints.latest_step
        first_step = saved_step or 0
        log = stack.enter_context(
            RunLog(plan.workdir, first_step, settings.num_steps, active=is_first)
        )
        for line in (*lines, _describe(plan, first_step), *plan.notes):
            log.say(line)
        init_key, dropout_key = jax.random.split(jax.random.key(settings.seed))
        if saved_step is not None:
            state, record = checkpoints.restore(saved_step, plan.setup.abstract_state)
        else:
            state, record = _begin(plan, init_key, log), {}
        meter = _meter(plan, log, record)
        batches = stack.enter_context(closing(plan.train_batches(first_step)))
        requests = stack.enter_context(StopRequests())
        stops, is_due = False, False
        for step, batch in enumerate(batches, first_step + 1):
            state, ratios = plan.train_step(state, batch, dropout_key)
            meter.push(step, ratios)
            if settings.debug_nans and ratios["skipped"].total:
                before = state._replace(step=state.step - 1)  # the rest is as it was
                where = first_nan(plan.train_step, before, batch, dropout_key)
                raise RunError(f"step {step} is not finite: {where}")
            is_last, found = step == settings.num_steps, {}
            stops = stops or (requests.at(step) and not is_last)
            if step % settings.eval_every == 0 or is_last:
                meter.pause()
                found = plan.evaluate(state.params)
                log.write(step, "validation", found)
                log.draw(plan.baselines)
            is_due = is_due or step % settings.checkpoint_every == 0 or is_last or stops
            if not is_due:
                continue
            meter.pause()
            if meter.bad_steps.in_row and not is_last:
                continue  # saves when they are over, so that the newest is from before them
            checkpoints.save(step, state, _record(meter), found)
            is_due = False
            if stops:
                log.say(f"asked to stop: saved step {step}; the same command goes on from there")
                break
    return state


def _begin(plan: Plan, key: jax.Array, log: RunLog) -> TrainState:
    state = plan.setup.init(key)
    if plan.start is None:
        return state
    log.say(f"{plan.config.init_from}: {describe_start(plan.start, state.params)}")
    return state._replace(params=start_with(plan.start, state.params))


def _take(workdir: Path, stack: ExitStack) -> list[str]:
    """Makes the run this one's alone while `stack` is; returns what is to be said of it."""
    lines = []
    try:
        with agreed():
            if jax.process_index() == 0:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(workdir))
                lines = set_aside_damaged(workdir / "checkpoints")
    except ValueError as error:
        raise RunError(str(error)) from None
    return lines


def _record(meter: Meter) -> dict[str, Any]:
    """What a checkpoint carries over beside the state."""
    return {"sums": meter.sums.as_dict(), "bad_steps": meter.bad_steps.as_dict()}


def _meter(plan: Plan, log: RunLog, record: dict[str, Any]) -> Meter:
    config = plan.config
    peak = peak_flops(jax.devices()[0].device_kind, config.train.dtype)
    return Meter(
        log,
        config.train.log_every,
        make_schedule(config.optimizer, config.train.num_steps),
        plan.flops,
        peak * plan.mesh.size if peak else None,
        Sums(record.get("sums")),
        BadSteps(config.train, log.say, plan.documents, record.get("bad_steps", {})),
    )


def _describe(plan: Plan, first_step: int) -> str:
    leaves = jax.tree.leaves(plan.setup.abstract_state.params)
    axes = ", ".join(f"{axis} {size}" for axis, size in plan.mesh.shape.items())
    start = f"resumes after step {first_step}" if first_step else "starts"
    return (
        f"{plan.workdir}: {start}, to step {plan.config.train.num_steps}; "
        f"{sum(leaf.size for leaf in leaves) / 1e6:.1f} M parameters; "
        f"{plan.mesh.size} × {jax.devices()[0].device_kind} as {axes}"
        + (f", in {jax.process_count()} processes" if jax.process_count() > 1 else "")
    )


def _report(plan: Plan) -> list[str]:
    """Lines that sum up a finished run: for pretraining, also masks that it fills."""
    lines = [m for m in read_metrics(plan.workdir / "metrics.jsonl") if m["split"] == "validation"]
    if plan.best is not None:
        name = plan.best
        best = max(lines, key=lambda m: m[name])
        return [f"best {name} {best[name]:.4f}, at step {best['step']}"]
    model = load(plan.workdir)
    loss, entropy = lines[-1]["mlm_loss"], plan.baselines["mlm_loss"]
    said = [f"held-out MLM loss {loss:.3f} nats a piece; unigram entropy {entropy:.3f}"]
    rows = open_rows(plan.config.data.path, "validation")
    for text, answer in cloze((rows[i] for i in range(len(rows))), model.tokenizer, count=5):
        (candidates,) = model.fill_mask(text, top_k=4)
        shown = ", ".join(f"{c.piece.lstrip('▁')} {c.probability:.2f}" for c in candidates)
        said.append(f"  {text}\n    [MASK] → {shown}   (was: {answer})")
    return said


def _run(plan: Plan) -> str:
    """Trains, says how it went, and returns the metric that the run is judged by.

    Raises:
      StoppedError: where it was asked to end before the last step.
    """
    with fatal_errors():
        state = train(plan)
    wait_for_all()  # the others may read what process 0 wrote
    if int(state.step) < plan.config.train.num_steps:
        raise StoppedError
    if jax.process_index() == 0:
        print(*_report(plan), sep="\n")
    return plan.best or "loss"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.train",
        description="Trains; started again on its --workdir, goes on from the newest checkpoint.",
        epilog="Settings are overridden with --config.GROUP.KEY=VALUE. Asked to stop, by SIGTERM "
        f"or Ctrl-C, it saves and ends with code {EXIT_CODE}. {HELP}",
    )
    parser.add_argument("--config", required=True, help="configs/X.py, or configs/X.py:ARGUMENT")
    parser.add_argument("--workdir", required=True, type=Path, help="the run directory")
    args, overrides = parser.parse_known_args(argv)
    with joined():
        try:
            return _command(args.config, overrides, args.workdir)
        except StoppedError:
            return EXIT_CODE
        except RunError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1


def _command(file: str, overrides: Sequence[str], workdir: Path) -> int:
    try:
        with agreed():
            config = load_config(file, overrides)
        if config.task.seeds:
            with ExitStack() as stack:
                _take(workdir, stack)
                return run_seeds(config, workdir, lambda c, d: _run(make_plan(c, d)))
        plan = make_plan(config, workdir)
    except USER_ERRORS as error:
        return fail(error) if jax.process_index() == 0 else 1
    _run(plan)
    return 0


if __name__ == "__main__":
    hide_late_writes()
    sys.exit(main())
