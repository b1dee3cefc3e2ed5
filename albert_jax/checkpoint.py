"""Checkpoints: atomic, asynchronous, the newest few kept. Orbax underneath."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from albert_jax.train_state import TrainState


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
        self._best = best
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_preservation(keep, best),
                cleanup_tmp_directories=not read_only,
                create=not read_only,
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

    @property
    def best_step(self) -> int | None:
        """The step whose record has the largest value of the metric `best` of its run."""
        records = {step: self.record(step) for step in self.steps}
        scores = {s: r["validation"][r["best"]] for s, r in records.items() if "best" in r}
        return max(scores, key=lambda step: (scores[step], step)) if scores else self.latest_step

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

    def record(self, step: int) -> dict[str, Any]:
        """The record alone."""
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args)["record"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the save under way, and lets go of the folder."""
        self._manager.wait_until_finished()
        self._manager.close()


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
