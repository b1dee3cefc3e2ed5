"""A run's learning curves: reads metrics.jsonl and draws curves.png."""

import gc
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.data.files import replace_text, replacing

METRICS_FILE, CURVES_FILE = "metrics.jsonl", "curves.png"  # in a run directory
_COLUMNS = 4


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a metrics.jsonl, without a torn last line left by a kill."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def rename_metrics(path: Path, renamed: Mapping[str, str]) -> None:
    """Rewrites a metrics.jsonl, if there is one, with the new metric names.

    Args:
      path: the file.
      renamed: metric -> its earlier name.
    """
    if not renamed or not path.exists():
        return
    lines = [with_new_names(line, renamed) for line in read_metrics(path)]
    replace_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def with_new_names(values: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Returns the values, in order, under new names; `renamed` maps metrics to earlier names."""
    new_names = {earlier: name for name, earlier in renamed.items()}
    return {new_names.get(name, name): value for name, value in values.items()}


def draw_curves(
    metrics_path: Path,
    output: Path,
    names: Sequence[str],
    baselines: Mapping[str, float],
    seams: Sequence[int] = (),
) -> None:
    """Draws training and held-out metrics over the steps.

    Args:
      metrics_path: a metrics.jsonl.
      output: the .png file to write.
      names: the metrics to draw; those never logged are left out.
      baselines: metric -> a level to draw as a dotted line.
      seams: steps at which the length of rows changes, drawn as vertical lines.
    """
    from matplotlib.figure import Figure  # imported here because the import takes half a second

    lines = read_metrics(metrics_path)
    present = {name for line in lines for name in line}
    names = [name for name in names if name in present]
    if not names:
        return
    rows = -(-len(names) // _COLUMNS)
    columns = -(-len(names) // rows)
    figure = Figure(figsize=(5.2 * columns, 3.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, name in zip(panels, names, strict=False):
        for split, style in {"train": "-", "validation": "o-"}.items():
            points = [(m["step"], m[name]) for m in lines if m["split"] == split and name in m]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=split, markersize=3)
        if name in baselines:
            axes.axhline(baselines[name], ls=":", color="grey", label="unigram entropy")
        last = max(m["step"] for m in lines)
        for seam in seams:
            if seam <= last:
                axes.axvline(seam, ls=":", color="grey", lw=1)
        unit = {"loss": " (nats)", "accuracy": " (fraction)"}.get(name.rpartition("_")[2], "")
        axes.set(xlabel="step (optimizer updates)", ylabel=f"{name.replace('_', ' ')}{unit}")
        axes.grid(alpha=0.3)
        axes.legend()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    gc.collect()  # a figure's parts form reference cycles, which would pile up otherwise
