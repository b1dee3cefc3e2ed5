"""The results of a search as a table and a figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from albert_jax.data.files import replace_text, replacing

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]


def write_report(output: Path, title: str, metric: str, floor: float, results: Results) -> None:
    """Writes `table.md` and `table.png`, the best settings first.

    Args:
      output: the folder.
      title: what was trained.
      metric: what `value` is; larger is better.
      floor: its value for a model that says the same of every example.
      results: by settings and seed, as `search` returns them.
    """
    values = {
        name: [run["value"] for run in runs.values() if "value" in run]
        for name, runs in results.items()
    }
    order = sorted(results, key=lambda name: -np.median(values[name] or [-np.inf]))
    replace_text(output / "table.md", _table(title, metric, floor, results, values, order))
    _draw(output / "table.png", title, metric, floor, values, order)


def _table(
    title: str,
    metric: str,
    floor: float,
    results: Results,
    values: Mapping[str, list[float]],
    order: list[str],
) -> str:
    about = (
        f"Best held-out {metric} of each run. Collapsed runs are no better than the same answer "
        f"for every example ({floor:.4f})."
    )
    lines = [
        f"# {title}",
        "",
        about,
        "",
        "| settings | median | from | to | spread | runs | collapsed | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in order:
        runs, found = results[name].values(), values[name]
        numbers = (np.median(found), min(found), max(found), np.std(found)) if found else ()
        cells = [f"{number:.4f}" for number in numbers] or ["–"] * 4
        collapsed = sum(run.get("collapsed", False) for run in runs)
        failed = sum("failed" in run for run in runs)
        counts = [str(count) for count in (len(runs), collapsed, failed)]
        lines.append(f"| {name.replace('|', '/')} | {' | '.join(cells + counts)} |")
    failures = [
        f"- {name}, seed {seed}: {run['failed']}"
        for name in order
        for seed, run in results[name].items()
        if "failed" in run
    ]
    return "\n".join([*lines, "", *failures]).rstrip() + "\n"


def _draw(
    path: Path,
    title: str,
    metric: str,
    floor: float,
    values: Mapping[str, list[float]],
    order: list[str],
) -> None:
    """Draws every run as a dot and medians as lines, the best settings at the top."""
    figure, axes = plt.subplots(figsize=(8, 1.5 + 0.35 * len(order)), layout="constrained")
    for i, name in enumerate(order):
        axes.plot(values[name], [i] * len(values[name]), "o", color="C0", alpha=0.7)
        if values[name]:
            axes.plot([np.median(values[name])] * 2, [i - 0.3, i + 0.3], color="black")
    axes.axvline(floor, color="C7", linestyle=":", label="the same answer for all")
    axes.set_yticks(range(len(order)), order, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"best held-out {metric}: each run, and the median")
    axes.set_title(title)
    axes.legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)
