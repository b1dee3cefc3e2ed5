"""Checkpoints: atomic, asynchronous, with checksums, the newest few kept. Orbax underneath."""

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

# What Orbax writes after the checksums are made; nothing is read from them.
_LATE = ("_CHECKPOINT_METADATA", "commit_success.txt")


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of Orbax's says what is not raised too, and not only what is set below."""
    said = record.exc_info or record.getMessage().startswith("Type handler registry")
    return not (said and "orbax" in record.pathname)


logging.getLogger("absl").addFilter(_is_news)
# Orbax's own has each device write its part of what all of them hold: a program to compile for
# each part of each array, and seconds of waiting at the first save, where one device copies all
# that ALBERT has in less. Sharded arrays are still written by those who hold them.
ocp.type_handlers.register_type_handler(
    jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False), override=True
)


class Checkpoints:
    """The checkpoints of one run, each of a `TrainState` and a small JSON record.

    A context: leaving it waits for the save under way, and raises what went wrong in it.
    """

    def __init__(
        self,
        directory: Path,
        keep: int | None = None,
        *,
        best: str | None = None,
        read_only: bool = False,
    ):
        """Opens the folder, removing what an interrupted save left, unless `read_only`.

        Args:
          directory: the folder.
          keep: how many of the newest are kept; None keeps all.
          best: a metric given to `save`; the checkpoint where it is largest is kept too.
          read_only: whether to leave the folder as it is. Then no process waits for another:
            one alone may read.
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
        """The steps of all whole checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint, if there is one."""
        return self._manager.latest_step()

    def find(self, step: int | None = None) -> int:
        """The step to read: the one asked for, else the best, where there is none the newest.

        Damaged ones are passed over, with a line that names them.

        Raises:
          FileNotFoundError: where there is no checkpoint.
          ValueError: where there is none of `step`, or it, or all there are, are damaged.
        """
        if not self.steps:
            raise FileNotFoundError(f"{str(self._directory)!r} holds no whole checkpoint yet")
        if step is not None and step not in self.steps:
            raise ValueError(f"no checkpoint of step {step} in {self._directory}: {self.steps}")
        damaged = {}
        for one in self._best_first() if step is None else [step]:
            folder = self._directory / str(one)
            reason = damage_of(folder)
            if reason is None:
                if not is_sealed(folder):
                    _warn(f"{folder} has no checksums: read unchecked")
                return one
            damaged[one] = reason
            _warn(f"{folder} is damaged and passed over: {reason}")
        raise ValueError(_none_whole(self._directory, damaged))

    def _best_first(self) -> list[int]:
        """All steps, by the metric `best` of their run, then those without it, then by age."""
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
        """Copies the state off the devices and goes on writing it in the background.

        Without metrics, a checkpoint can be the newest but not the best.
        """
        self._manager.wait_until_finished()  # `_saving` belongs to the save under way
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
        """The state, placed as `abstract` says, and the record."""
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
        """Shapes and dtypes of the parameters, as a nested dict."""
        tree = self._manager.item_metadata(step)["params"].tree
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)

    def restore_params(self, step: int, abstract_params: Any) -> Any:
        """The parameters alone."""
        args = ocp.args.Composite(params=ocp.args.StandardRestore(abstract_params))
        return self._manager.restore(step, args=args)["params"]

    def read_moments(self, step: int) -> tuple[Any, Any]:
        """The optimizer's first and second moments, on the host."""
        tree = self._manager.item_metadata(step)["optimizer"].tree
        device = jax.local_devices()[0]
        args = ocp.args.Composite(
            optimizer=ocp.args.StandardRestore(abstract_on_device(tree, device))
        )
        state = self._manager.restore(step, args=args)["optimizer"]["state"]
        mu, nu = (optax.tree.get(state, name) for name in ("mu", "nu"))
        return jax.tree.map(np.asarray, mu), jax.tree.map(np.asarray, nu)

    def record(self, step: int) -> dict[str, Any]:
        """The record alone."""
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["record"]

    def _seal(self) -> None:
        """Called, in one process, when all is written and the folder is about to be renamed."""
        (folder,) = self._directory.glob(f"{self._saving}.orbax-checkpoint-tmp*")
        seal(folder, without=_LATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the save under way, and lets go of the folder."""
        self._manager.wait_until_finished()
        self._manager.close()


def set_aside_damaged(directory: Path) -> list[str]:
    """Renames checkpoints that are damaged and newer than the newest whole one.

    So a run that goes on can save those steps again. To be called by one process, before any
    opens the folder.

    Returns:
      Lines that say so.

    Raises:
      ValueError: where there are checkpoints and none is whole; then nothing is renamed.
    """
    found = [path for path in directory.glob("[0-9]*") if path.name.isdecimal()]
    damaged, whole = {}, None
    for path in sorted(found, key=lambda path: int(path.name), reverse=True):
        # Of older ones Orbax reads only the metrics, and removes them in time.
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
        lines.append(f"{whole} has no checksums: read unchecked")
    return lines


def _none_whole(directory: Path, damaged: Mapping[int, str]) -> str:
    said = ", ".join(f"step {step} ({reason})" for step, reason in damaged.items())
    return (
        f"{str(directory)!r}: no whole checkpoint among {said}; bring one back from a copy, or "
        "move them away"
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
    """Which processes open a folder together: this one alone, or all."""
    if not alone:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
    )


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Who writes and reads each item, so that it can also be described without being read."""
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
    """Shapes like `tree`'s, to be restored onto one device."""
    sharding = jax.sharding.SingleDeviceSharding(device)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
