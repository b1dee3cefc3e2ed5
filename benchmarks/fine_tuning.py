"""Draws the results of benchmarks/fine_tuning.sh as a table and a figure.

    python benchmarks/fine_tuning.py PRETRAINED SCRATCH OUTPUT

PRETRAINED and SCRATCH are the RUNS of two calls of the script; OUTPUT gets fine_tuning.md and
fine_tuning.png.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

_TASKS = {
    "sst2": "SST-2",
    "cola": "CoLA",
    "mrpc": "MRPC",
    "rte": "RTE",
    "stsb": "STS-B",
    "conll2003": "CoNLL-2003",
    "squad": "SQuAD 2.0",
    "race": "RACE",
}


class Result(NamedTuple):
    """Of the seeds of one task: the metric's values, in percent, and minutes a run."""

    metric: str
    values: list[float]
    minutes: float


def read_result(folder: Path) -> Result:
    """What the seeds of a task came to."""
    summary = json.loads((folder / "seeds.json").read_text("utf-8"))
    # SQuAD's metrics are percentages already.
    scale = 1 if max(summary["values"].values()) > 1 else 100
    minutes = [
        (seed / "metrics.jsonl").stat().st_mtime - (seed / "config.json").stat().st_mtime
        for seed in folder.glob("seed_*")
    ]
    values = [scale * value for value in summary["values"].values()]
    return Result(summary["metric"], values, float(np.median(minutes)) / 60)


def table(results: dict[str, tuple[Result, Result]]) -> str:
    """Markdown: a row a task."""

    def cell(result: Result) -> str:
        low, high = min(result.values), max(result.values)
        return f"{np.median(result.values):.1f} ({low:.1f}–{high:.1f})"

    lines = [
        "| task | metric | from scratch | pretrained | gain | minutes a run |",
        "|---|---|---|---|---|---|",
    ]
    for name, (pretrained, scratch) in results.items():
        gain = np.median(pretrained.values) - np.median(scratch.values)
        lines.append(
            f"| {_TASKS[name]} | {pretrained.metric} | {cell(scratch)} | {cell(pretrained)} "
            f"| {gain:+.1f} | {scratch.minutes:.1f}, {pretrained.minutes:.1f} |"
        )
    return "\n".join(lines) + "\n"


def draw(results: dict[str, tuple[Result, Result]], path: Path) -> None:
    """Every seed as a dot, medians as bars."""
    figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
    for side, (label, color) in enumerate([("pretrained", "C0"), ("from scratch", "C7")]):
        places = np.arange(len(results)) + (0.2 if side == 0 else -0.2)
        runs: list[Any] = [both[side].values for both in results.values()]
        axes.bar(places, [np.median(r) for r in runs], 0.38, color=color, alpha=0.6, label=label)
        for place, values in zip(places, runs, strict=True):
            axes.plot([place] * len(values), values, ".", color="black", markersize=4)
    names = [f"{_TASKS[name]}\n{both[0].metric}" for name, both in results.items()]
    axes.set_xticks(np.arange(len(results)), names, fontsize=8)
    axes.set_ylabel("held-out score (%)")
    axes.set_title("Fine-tuning with and without pretraining: medians, and each seed")
    axes.margins(y=0.2)  # room for the legend above the bars
    axes.legend(ncols=2)
    figure.savefig(path, dpi=120)


def main(pretrained: str, scratch: str, output: str) -> None:
    """The command."""
    results = {
        name: (read_result(Path(pretrained, name)), read_result(Path(scratch, name)))
        for name in _TASKS
        if all(Path(side, name, "seeds.json").is_file() for side in (pretrained, scratch))
    }
    into = Path(output)
    into.mkdir(parents=True, exist_ok=True)
    (into / "fine_tuning.md").write_text(table(results), "utf-8")
    draw(results, into / "fine_tuning.png")
    print(table(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
