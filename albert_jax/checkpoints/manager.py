"""Checkpoints on top of Orbax: atomic, asynchronous, with checksums, keeping the newest few.

A disk or a copy can silently damage a file. Every checkpoint is therefore sealed with checksums
before it gets its final name. One that does not match them is never loaded: readers skip it, and
training renames it and resumes from the newest intact one, so no run continues from bad weights.
"""

import itertools
import logging
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

from albert_jax.checkpoints.checksums import damage_of, is_sealed, seal
from albert_jax.checkpoints.state import TrainState

# Files that Orbax writes after the checksums are made; nothing is read from them.
_LATE = ("_CHECKPOINT_METADATA", "commit_success.txt")


def _is_news(record: logging.LogRecord) -> bool:
    """Returns whether an Orbax log line tells more than a raised error or the settings below."""
    said = record.exc_info or record.getMessage().startswith("Type handler registry")
    return not (said and "orbax" in record.pathname)


logging.getLogger("absl").addFilter(_is_news)
# By default, Orbax has each device write its part of replicated arrays. That compiles a program
# for each part of each array and takes seconds at the first save, while a single device copies all
# of ALBERT in less. Sharded arrays are still written by the devices that hold them.
ocp.type_handlers.register_type_handler(
    jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False), override=True
)


class Checkpoints:
    """The checkpoints of one run, each of a `TrainState` and a small JSON record.

    Use it as a context manager: leaving the context waits for the save in progress, and raises
    its errors.
    """

    def __init__(
        self,
        directory: Path,
        keep: int | None = None,
        *,
        best: str | None = None,
        read_only: bool = False,
    ):
        """Opens the folder, and removes the remains of an interrupted save unless `read_only`.

        Args:
          directory: the folder.
          keep: how many of the newest checkpoints to keep; None keeps all.
          best: a metric passed to `save`; the checkpoint with its largest value is kept too.
          read_only: whether to leave the folder unchanged. No process then waits for another, so
            a single process may read.
        """
        self._directory, self._best, self._saving = directory.absolute(), best, 0
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_preservation(keep, best),
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                async_options=ocp.options.AsyncOptions(post_finalization_callback=self._seal),
                multiprocessing_options=_processes(alone=read_only),
            ),
            handler_registry=_handlers(),
        )

    @property
    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, if there is one."""
        return self._manager.latest_step()

    def find(self, step: int | None = None) -> int:
        """Returns the step to read: the requested one, else the best, else the newest.

        Skips damaged checkpoints, with a warning that names each.

        Raises:
          FileNotFoundError: if there is no checkpoint.
          ValueError: if `step` has no checkpoint, or if that one or all of them are damaged.
        """
        if not self.steps:
            raise FileNotFoundError(f"{str(self._directory)!r} holds no complete checkpoint yet")
        if step is not None and step not in self.steps:
            raise ValueError(
                f"no checkpoint of step {step} in {self._directory}; available: {self.steps}"
            )
        damaged = {}
        for one in self._best_first() if step is None else [step]:
            folder = self._directory / str(one)
            reason = damage_of(folder)
            if reason is None:
                if not is_sealed(folder):
                    _warn(f"{folder} has no checksums: reading it unchecked")
                return one
            damaged[one] = reason
            _warn(f"skipping {folder}, which is damaged: {reason}")
        raise ValueError(_none_whole(self._directory, damaged))

    def _best_first(self) -> list[int]:
        """Returns all steps, best first by the run's metric `best`, then the others by age."""
        scores = {}
        for step in self.steps:
            if damage_of(self._directory / str(step), "record/") is None:
                record = self.record(step)
                if "best" in record:
                    scores[step] = record["validation"][record["best"]]
        return sorted(self.steps, key=lambda s: (scores.get(s, -math.inf), s), reverse=True)

    def save(
        self,
        step: int,
        state: TrainState,
        record: dict[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Copies the state off the devices, and writes it in the background.

        A checkpoint without metrics can be the newest but not the best.
        """
        self._manager.wait_until_finished()  # `_saving` belongs to the save in progress
        self._saving = step
        if self._best is not None and metrics:
            record = record | {"best": self._best, "validation": dict(metrics)}
        self._manager.save(
            step,
            metrics=dict(metrics) if metrics and self._best else None,
            args=ocp.args.Composite(
                params=ocp.args.StandardSave(state.params),
                optimizer=ocp.args.StandardSave({"step": state.step, "state": state.opt_state}),
                record=ocp.args.JsonSave(record),
            ),
        )

    def restore(self, step: int, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Returns the state, sharded like `abstract`, and the record."""
        optimizer = {"step": abstract.step, "state": abstract.opt_state}
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=ocp.args.StandardRestore(abstract.params),
                optimizer=ocp.args.StandardRestore(optimizer),
                record=ocp.args.JsonRestore(),
            ),
        )
        optimizer = restored["optimizer"]
        state = TrainState(optimizer["step"], restored["params"], optimizer["state"])
        return state, restored["record"]

    def param_shapes(self, step: int) -> Any:
        """Returns shapes and dtypes of the parameters, as a nested dict."""
        tree = self._manager.item_metadata(step)["params"].tree
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)

    def restore_params(self, step: int, abstract_params: Any) -> Any:
        """Returns only the parameters."""
        args = ocp.args.Composite(params=ocp.args.StandardRestore(abstract_params))
        return self._manager.restore(step, args=args)["params"]

    def mean_params(self, count: int, abstract_params: Any) -> tuple[int, Any]:
        """Returns the newest step and the mean of the `count` newest parameters, sharded alike.

        Damaged checkpoints are skipped with a warning, and older ones take their place.

        Raises:
          ValueError: if there are fewer intact checkpoints.
        """
        whole = []
        for step in reversed(self.steps):
            if reason := damage_of(self._directory / str(step)):
                _warn(f"skipping {self._directory / str(step)}, which is damaged: {reason}")
            else:
                whole.append(step)
        if len(whole) < count:
            raise ValueError(
                f"{str(self._directory)!r} has {len(whole)} intact checkpoints, not the {count} "
                "to average; set train.keep_checkpoints before training, or average fewer"
            )
        total = None
        for step in whole[:count]:
            params = self.restore_params(step, abstract_params)
            total = params if total is None else jax.tree.map(jax.numpy.add, total, params)
        return whole[0], jax.tree.map(lambda leaf: leaf / count, total)

    def read_moments(self, step: int) -> tuple[Any, Any]:
        """Returns the optimizer's first and second moments, on the host."""
        tree = self._manager.item_metadata(step)["optimizer"].tree
        device = jax.local_devices()[0]
        args = ocp.args.Composite(
            optimizer=ocp.args.StandardRestore(abstract_on_device(tree, device))
        )
        state = self._manager.restore(step, args=args)["optimizer"]["state"]
        mu, nu = (optax.tree.get(state, name) for name in ("mu", "nu"))
        return jax.tree.map(np.asarray, mu), jax.tree.map(np.asarray, nu)

    def record(self, step: int) -> dict[str, Any]:
        """Returns only the record."""
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["record"]

    def _seal(self) -> None:
        """Writes the checksums; called in one process, just before the folder gets its name."""
        (folder,) = self._directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        seal(folder, without=_LATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the save in progress, and closes the folder."""
        self._manager.wait_until_finished()
        self._manager.close()


def set_aside_damaged(directory: Path) -> list[str]:
    """Renames damaged checkpoints that are newer than the newest intact one.

    A resumed run can then save those steps again. Call it in one process, before any process
    opens the folder.

    Returns:
      Lines that report each renamed checkpoint.

    Raises:
      ValueError: if there are checkpoints but none is intact; nothing is renamed then. Starting
        over silently would hide the loss of all progress.
    """
    found = [path for path in directory.glob("[0-9]*") if path.name.isdecimal()]
    damaged, whole = {}, None
    for path in sorted(found, key=lambda path: int(path.name), reverse=True):
        # Of checkpoints older than the newest intact one, Orbax reads only the metrics.
        reason = damage_of(path, "" if whole is None else "metrics/")
        if reason is not None:
            damaged[int(path.name)] = reason
        elif whole is None:
            whole = path
    if damaged and whole is None:
        raise ValueError(_none_whole(directory, damaged))
    lines = []
    for step, reason in damaged.items():
        aside = _unused(directory / f"{step}.damaged")
        (directory / str(step)).rename(aside)
        lines.append(f"the checkpoint of step {step} is damaged ({reason}): renamed to {aside}")
    if whole is not None and not is_sealed(whole):
        lines.append(f"{whole} has no checksums: reading it unchecked")
    return lines


def _none_whole(directory: Path, damaged: Mapping[int, str]) -> str:
    said = ", ".join(f"step {step} ({reason})" for step, reason in damaged.items())
    return (
        f"{str(directory)!r}: no intact checkpoint among {said}; restore one from a copy, or "
        "move them away to start over"
    )


def _unused(path: Path) -> Path:
    others = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
    return next(name for name in itertools.chain([path], others) if not name.exists())


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr, flush=True)


def _preservation(keep: int | None, best: str | None) -> Any:
    policies = ocp.checkpoint_managers
    if keep is None:
        return None  # all
    kept: list[Any] = [policies.LatestN(keep)]
    if best is not None:
        kept.append(
            policies.BestN(
                get_metric_fn=lambda metrics: metrics[best],
                n=1,
                keep_checkpoints_without_metrics=False,
            )
        )
    return policies.AnyPreservationPolicy(kept)


def _processes(*, alone: bool) -> ocp.options.MultiprocessingOptions:
    """Returns which processes open a folder together: only this one, or all."""
    if not alone:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Returns the handler of each item, so that items can be described without being read."""
    handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in ("params", "optimizer"):
        standard = ocp.StandardCheckpointHandler()
        handlers.add(item, ocp.args.StandardSave, standard)
        handlers.add(item, ocp.args.StandardRestore, standard)
    json = ocp.JsonCheckpointHandler()
    handlers.add("record", ocp.args.JsonSave, json)
    handlers.add("record", ocp.args.JsonRestore, json)
    return handlers


def abstract_on_device(tree: Any, device: Any) -> Any:
    """Returns the shapes of `tree`, to be restored onto one device."""
    sharding = jax.sharding.SingleDeviceSharding(device)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
