"""A run's curves: metrics.jsonl as it is read, curves.png as it is drawn."""

import json
from pathlib import Path
from typing import Any


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl; a torn last line, left by a kill, is not one."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def draw_curves(metrics_path: Path, output: Path, baselines: dict[str, float]) -> None:
    """Draws each loss and accuracy over the steps, train and held-out.

    Args:
      metrics_path: a metrics.jsonl.
      output: a .png to write.
      baselines: metric -> a level to draw as a dotted line.
    """
    from matplotlib.figure import Figure  # half a second to import: only when drawing

    lines = read_metrics(metrics_path)
    present = {name for line in lines for name in line}
    names = [n for n in ("mlm_loss", "mlm_accuracy", "sop_loss", "sop_accuracy") if n in present]
    if not names:
        return
    figure = Figure(figsize=(5.2 * len(names), 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for split, style in {"train": "-", "validation": "o-"}.items():
            points = [(m["step"], m[name]) for m in lines if m["split"] == split and name in m]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=split, markersize=3)
        if name in baselines:
            axes.axhline(baselines[name], ls=":", color="grey", label="unigram entropy")
        unit = "nats" if name.endswith("loss") else "share right"
        axes.set(xlabel="step (optimizer updates)", ylabel=f"{name.replace('_', ' ')} ({unit})")
        axes.grid(alpha=0.3)
        axes.legend()
    temporary = output.with_name(f".{output.name}")
    figure.savefig(temporary, dpi=120, format="png")
    temporary.replace(output)
