"""Learning curves of several runs, and in which settings the runs differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from albert_jax.run_dir import read_run
from albert_jax.run_log import read_metrics


class Curve(NamedTuple):
    """A metric over a run: steps int64 [N] (optimizer updates), values float64 [N]."""

    steps: np.ndarray
    values: np.ndarray


def read_curves(
    workdirs: Sequence[str | Path], metric: str, split: str = "validation"
) -> dict[str, Curve]:
    """A metric of several runs, by the names of their directories.

    Args:
      workdirs: run directories, those without the metric are left out.
      metric: as metrics.jsonl names it.
      split: "train" or "validation".

    Raises:
      FileNotFoundError: where a directory has no metrics.jsonl.
      ValueError: where no run has the metric.
    """
    curves = {}
    for workdir in map(Path, workdirs):
        lines = read_metrics(workdir / "metrics.jsonl")
        points = [(m["step"], m[metric]) for m in lines if m["split"] == split and metric in m]
        if points:
            steps, values = zip(*points, strict=True)
            curves[workdir.name] = Curve(np.array(steps), np.array(values, np.float64))
    if not curves:
        raise ValueError(f"no run of {[str(w) for w in workdirs]} has {metric!r} for {split!r}")
    return curves


def smooth(curve: Curve, width: int) -> Curve:
    """Means over windows of `width` neighbouring points, each at its window's middle."""
    if width <= 1 or len(curve.steps) < width:
        return curve
    window = np.full(width, 1 / width)
    return Curve(*(np.convolve(part, window, "valid") for part in curve))


def differing_settings(workdirs: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    """The settings that are not the same in all runs: key -> run's name -> value."""
    runs: dict[str, Mapping[str, Any]] = {
        Path(workdir).name: traverse_util.flatten_dict(
            read_run(Path(workdir)).config.to_dict(), sep="."
        )
        for workdir in workdirs
    }
    keys = next(iter(runs.values())).keys()
    return {
        key: {name: settings[key] for name, settings in runs.items()}
        for key in keys
        if len({repr(settings[key]) for settings in runs.values()}) > 1
    }
