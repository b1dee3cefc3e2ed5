"""A run's curves: metrics.jsonl as it is read, curves.png as it is drawn."""

import gc
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.data.files import replace_text, replacing

METRICS_FILE = "metrics.jsonl"  # of a run directory
_COLUMNS = 4


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl; a torn last line, left by a kill, is not one."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def rename_metrics(path: Path, renamed: Mapping[str, str]) -> None:
    """Rewrites a metrics.jsonl, if there is one, with new names of metrics.

    Args:
      path: the file.
      renamed: metric -> its earlier name.
    """
    if not renamed or not path.exists():
        return
    lines = [with_new_names(line, renamed) for line in read_metrics(path)]
    replace_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def with_new_names(values: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The same values, in their order, where `renamed` maps metrics to their earlier names."""
    new_names = {earlier: name for name, earlier in renamed.items()}
    return {new_names.get(name, name): value for name, value in values.items()}


def draw_curves(
    metrics_path: Path, output: Path, names: Sequence[str], baselines: Mapping[str, float]
) -> None:
    """Draws metrics over the steps, train and held-out.

    Args:
      metrics_path: a metrics.jsonl.
      output: a .png to write.
      names: of the metrics; those that nothing was logged of are left out.
      baselines: metric -> a level to draw as a dotted line.
    """
    from matplotlib.figure import Figure  # half a second to import: only when drawing

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
        unit = {"loss": " (nats)", "accuracy": " (share right)"}.get(name.rpartition("_")[2], "")
        axes.set(xlabel="step (optimizer updates)", ylabel=f"{name.replace('_', ' ')}{unit}")
        axes.grid(alpha=0.3)
        axes.legend()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    gc.collect()  # a drawing's parts refer to one another; left to wait, they pile up
