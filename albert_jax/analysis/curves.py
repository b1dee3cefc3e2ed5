"""Learning curves of several runs, and the settings in which the runs differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from albert_jax.checkpoints.run_dir import read_run
from albert_jax.train.curves import read_metrics


class Curve(NamedTuple):
    """A metric over a run: steps int64 [N] (optimizer updates), values float64 [N]."""

    steps: np.ndarray
    values: np.ndarray


def run_names(workdirs: Sequence[str | Path]) -> list[str]:
    """Returns a name for each run: the shortest end of its path that is unique.

    Raises:
      ValueError: if a directory is given twice.
    """
    paths = [Path(workdir).absolute().parts for workdir in workdirs]
    for length in range(1, max(map(len, paths), default=0) + 1):
        names = ["/".join(path[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"runs must be distinct, not {[str(w) for w in workdirs]}")


def read_curves(
    workdirs: Sequence[str | Path], metric: str, split: str = "validation"
) -> dict[str, Curve]:
    """Returns a metric of several runs, by their `run_names`.

    Args:
      workdirs: run directories; those without the metric are left out.
      metric: its name in metrics.jsonl.
      split: "train" or "validation".

    Raises:
      FileNotFoundError: if a directory has no metrics.jsonl.
      ValueError: if no run has the metric, or one is given twice.
    """
    curves = {}
    for name, workdir in zip(run_names(workdirs), workdirs, strict=True):
        lines = read_metrics(Path(workdir) / "metrics.jsonl")
        points = [(m["step"], m[metric]) for m in lines if m["split"] == split and metric in m]
        if points:
            steps, values = zip(*points, strict=True)
            curves[name] = Curve(np.array(steps), np.array(values, np.float64))
    if not curves:
        raise ValueError(f"no run of {[str(w) for w in workdirs]} has {metric!r} for {split!r}")
    return curves


def smooth(curve: Curve, width: int) -> Curve:
    """Returns means over windows of `width` adjacent points, each at its window's middle."""
    if width <= 1 or len(curve.steps) < width:
        return curve
    window = np.full(width, 1 / width)
    return Curve(*(np.convolve(part, window, "valid") for part in curve))


def differing_settings(workdirs: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    """Returns the settings that differ between runs: key -> run's name -> value.

    Raises:
      FileNotFoundError: if a directory is not a run directory.
      ValueError: if one is given twice.
    """
    runs: dict[str, Mapping[str, Any]] = {
        name: traverse_util.flatten_dict(read_run(Path(workdir)).config.to_dict(), sep=".")
        for name, workdir in zip(run_names(workdirs), workdirs, strict=True)
    }
    keys = next(iter(runs.values())).keys()
    return {
        key: {name: settings[key] for name, settings in runs.items()}
        for key in keys
        if len({repr(settings[key]) for settings in runs.values()}) > 1
    }
