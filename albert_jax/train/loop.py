"""The training loop: steps, evaluations and checkpoints, from the run's current step."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jax

from albert_jax.checkpoints.manager import Checkpoints, set_aside_damaged
from albert_jax.checkpoints.run_dir import locked
from albert_jax.checkpoints.state import TrainState
from albert_jax.config.errors import RunError
from albert_jax.data.row_reader import DamagedRowsError
from albert_jax.model.attention import dropout_note
from albert_jax.model.flops import peak_flops
from albert_jax.tasks.base import MeanSums
from albert_jax.train.curves import (
    CURVES_FILE,
    METRICS_FILE,
    draw_curves,
    rename_metrics,
    with_new_names,
)
from albert_jax.train.distributed import agreed
from albert_jax.train.experiment import Experiment, Seam
from albert_jax.train.failures import BadSteps, disk_full_as_run_error, first_nan
from albert_jax.train.initialization import describe_start, repeat_positions, start_with
from albert_jax.train.loggers import RunLog, open_log
from albert_jax.train.metrics import Meter
from albert_jax.train.optimizer import make_schedule
from albert_jax.train.preemption import StopRequests
from albert_jax.train.saving import SaveTimes


def train(experiment: Experiment) -> TrainState:
    """Trains to the last step, resuming from the newest checkpoint of the run if there is one.

    On a request to stop (see `StopRequests`), saves and returns the state of an earlier step.

    Raises:
      RunError: if the run cannot continue.
    """
    settings = experiment.config.train
    with ExitStack() as stack:
        stack.enter_context(disk_full_as_run_error(experiment.workdir, DamagedRowsError))
        lines = take_directory(experiment.workdir, stack)
        stack.enter_context(jax.set_mesh(experiment.mesh))
        checkpoints = stack.enter_context(_open_checkpoints(experiment))
        saved_step = checkpoints.latest_step
        first_step = saved_step or 0
        log = stack.enter_context(_open_log(experiment, first_step))
        for line in (*lines, *_describe(experiment, first_step)):
            log.say(line)
        init_key, dropout_key = jax.random.split(jax.random.key(settings.seed))
        if saved_step is not None:
            state, record = checkpoints.restore(saved_step, experiment.spec.abstract_state)
        else:
            state, record = _begin(experiment, init_key, log), {}
        meter = _meter(experiment, log, record)
        batches = stack.enter_context(closing(experiment.train_batches(first_step)))
        requests, saves = stack.enter_context(StopRequests()), SaveTimes(settings)
        stops, is_due = False, False
        for step, batch in enumerate(batches, first_step + 1):
            if seam := experiment.seams.get(step):
                meter.pause()  # rates leave out the time to compile the new shape
                state = _cross(seam, state, log)
            if seam or step == first_step + 1:
                _say_memory(log, experiment, state, batch, dropout_key)
            state, metrics = experiment.train_step(state, batch, dropout_key)
            meter.push(step, metrics)
            if settings.debug_nans and metrics["skipped"].total:
                _raise_first_nan(step, experiment, state, batch, dropout_key)
            is_last, found = step == settings.num_steps, {}
            stops = stops or (requests.at(step) and not is_last)
            if step % settings.eval_every == 0 or is_last:
                meter.pause()
                found = _evaluate(experiment, state, step, log)
            is_due = saves.at(step) or is_due or is_last or stops
            if not is_due:
                continue
            meter.pause()
            if meter.bad_steps.in_row and not is_last:
                # Wait until the bad steps are over, so that the newest checkpoint stays one from
                # before they began: a good state to restart from.
                continue
            checkpoints.save(step, state, _record(meter), found)
            saves.saved()
            is_due = False
            if stops:
                log.say(f"stopped on request: saved step {step}; rerun the command to resume")
                break
    return state


def _open_checkpoints(experiment: Experiment) -> Checkpoints:
    folder, keep = experiment.workdir / "checkpoints", experiment.config.train.keep_checkpoints
    return Checkpoints(folder, keep, best=experiment.best)


def _evaluate(
    experiment: Experiment, state: TrainState, step: int, log: RunLog
) -> dict[str, float]:
    """Returns the metrics on held-out examples, logged and drawn."""
    found = experiment.evaluate(state.params, step)
    log.write(step, "validation", found)
    _draw(experiment)
    return found


def _raise_first_nan(
    step: int, experiment: Experiment, state: TrainState, *arguments: Any
) -> None:
    before = state._replace(step=state.step - 1)  # a skipped step changes only this
    where = first_nan(experiment.train_step, before, *arguments)
    raise RunError(f"step {step} is not finite: {where}")


def _say_memory(log: RunLog, experiment: Experiment, *arguments: Any) -> None:
    """Says how much of a device's memory the step will use; compiles it, for the call to come.

    Says nothing of a step that is wrapped in a function, which has no program of its own.
    """
    if not hasattr(experiment.train_step, "lower"):
        return
    found: Any = experiment.train_step.lower(*arguments).compile().memory_analysis()
    used = found.argument_size_in_bytes + found.temp_size_in_bytes
    device = experiment.mesh.local_devices[0]
    limit = (device.memory_stats() or {}).get("bytes_limit")
    share = f" of {limit / 2**30:.1f} ({used / limit:.0%})" if limit else ""
    log.say(f"a step uses {used / 2**30:.2f}{share} GiB of memory on each device")


def _cross(seam: Seam, state: TrainState, log: RunLog) -> TrainState:
    """Returns the state to go on with where rows become longer."""
    log.say(seam.line)
    if seam.known_positions is None:
        return state
    return state._replace(params=repeat_positions(state.params, seam.known_positions))


def _open_log(experiment: Experiment, first_step: int) -> RunLog:
    """Opens the run's loggers; only process 0 has any."""
    settings, is_first = experiment.config.train, jax.process_index() == 0
    if is_first:
        rename_metrics(experiment.workdir / METRICS_FILE, experiment.renamed)
    return open_log(
        experiment.workdir, first_step, settings.num_steps, settings.loggers, active=is_first
    )


def _draw(experiment: Experiment) -> None:
    if jax.process_index() == 0:
        draw_curves(
            experiment.workdir / METRICS_FILE,
            experiment.workdir / CURVES_FILE,
            experiment.curves,
            experiment.baselines,
            tuple(experiment.seams),
        )


def _begin(experiment: Experiment, key: jax.Array, log: RunLog) -> TrainState:
    state = experiment.spec.init(key)
    if experiment.start is None:
        return state
    log.say(f"{experiment.config.init_from}: {describe_start(experiment.start, state.params)}")
    return state._replace(params=start_with(experiment.start, state.params))


def take_directory(workdir: Path, stack: ExitStack) -> list[str]:
    """Locks the run directory for the lifetime of `stack`; returns lines to log."""
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
    """Returns what a checkpoint stores besides the state."""
    return {"sums": meter.sums.as_dict(), "bad_steps": meter.bad_steps.as_dict()}


def _meter(experiment: Experiment, log: RunLog, record: dict[str, Any]) -> Meter:
    config = experiment.config
    peak = peak_flops(experiment.mesh.devices.flat[0].device_kind, config.train.dtype)
    return Meter(
        log=log,
        log_every=config.train.log_every,
        learning_rate=make_schedule(config.optimizer, config.train.num_steps),
        flops=experiment.flops,
        peak_flops=peak * experiment.mesh.size if peak else None,
        sums=MeanSums(with_new_names(record.get("sums", {}), experiment.renamed)),
        bad_steps=BadSteps(
            config.train, log.say, experiment.documents, record.get("bad_steps", {})
        ),
    )


def _describe(experiment: Experiment, first_step: int) -> list[str]:
    config, device = experiment.config, experiment.mesh.devices.flat[0]
    leaves = jax.tree.leaves(experiment.spec.abstract_state.params)
    axes = ", ".join(f"{axis} {size}" for axis, size in experiment.mesh.shape.items())
    start = f"resumes after step {first_step}" if first_step else "starts"
    line = (
        f"{experiment.workdir}: {start}, to step {config.train.num_steps}; "
        f"{sum(leaf.size for leaf in leaves) / 1e6:.1f} M parameters; "
        f"{experiment.mesh.size} × {device.device_kind} as {axes}"
        + (f", in {jax.process_count()} processes" if jax.process_count() > 1 else "")
    )
    rate = config.model.attention_probs_dropout_prob
    note = dropout_note(config.train.attention, rate, device.platform)
    return [line, *experiment.notes, *([note] if note else [])]
