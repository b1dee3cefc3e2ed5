"""Draws the results of benchmarks/translation.sh as a table and a figure.

    python benchmarks/translation.py RUNS OUTPUT

RUNS is that of the script; OUTPUT gets albert.md and albert.png.
"""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

_ARMS = {
    "random": "random weights, one layer for both",
    "albert": "ALBERT, one layer for both",
    "albert_own": "ALBERT, decoder of its own",
    "albert_new_first": "ALBERT, one layer for both, new weights first",
}
_SEEDS = (0, 1, 2)


def validation(folder: Path) -> tuple[list[int], list[float]]:
    """Steps, and BLEU of greedy translations of the validation set."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text("utf-8").splitlines())
    found = {line["step"]: line["bleu"] for line in lines if line["split"] == "validation"}
    return list(found), list(found.values())


def test_scores(folder: Path) -> dict[str, float]:
    """What `predict` said of the test set: its line of JSON."""
    lines = (folder / "test.txt").read_text("utf-8").splitlines()
    return json.loads(next(line for line in lines if line.startswith("{")))


def cell(values: list[float], digits: int = 1) -> str:
    """The median, and the range."""
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main(runs: str, output: str) -> None:
    """The command."""
    arms = {
        name: [Path(runs, name, f"seed_{seed}") for seed in _SEEDS]
        for name in _ARMS
        if all((Path(runs, name, f"seed_{seed}") / "test.txt").is_file() for seed in _SEEDS)
    }
    into = Path(output)
    into.mkdir(parents=True, exist_ok=True)
    lines = [
        "| begun from | test BLEU, cased | chrF | cross entropy, nats |",
        "|---|---|---|---|",
    ]
    for name, folders in arms.items():
        scores = [test_scores(folder) for folder in folders]
        cells = [
            cell([one["bleu"] for one in scores]),
            cell([one["chrf"] for one in scores]),
            cell([one["cross_entropy"] for one in scores], 2),
        ]
        lines.append(f"| {_ARMS[name]} | {' | '.join(cells)} |")
    (into / "albert.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for i, (name, folders) in enumerate(arms.items()):
        steps, _ = validation(folders[0])
        values = np.array([validation(folder)[1] for folder in folders])
        axes.plot(steps, np.median(values, axis=0), "o-", color=f"C{i}", label=_ARMS[name])
        axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=f"C{i}", alpha=0.2)
    axes.set_xlabel("updates of 2,048 tokens")
    axes.set_ylabel("BLEU of the validation set, greedy")
    axes.set_title("Multi30k, English to German: median and range of three seeds")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(into / "albert.png", dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:])
