"""Fine-tuning runs over several seeds, and their summary."""

import dataclasses
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from albert_jax.config import Config
from albert_jax.data.files import replace_json
from albert_jax.train.curves import METRICS_FILE, read_metrics


def run_seeds(config: Config, workdir: Path, run: Callable[[Config, Path], str]) -> int:
    """Runs every seed of `config.task.seeds` in its own directory, and summarizes the results.

    Writes `seeds.json`: the metric, its best value for each seed, their median and spread,
    and the runs that failed, with the reason. A failed run does not stop the others.

    Args:
      config: the settings; `train.seed` is replaced.
      workdir: the parent of the run directories, `seed_N` for each seed.
      run: trains one run and returns the name of the metric that ranks runs. If it fails in one
        process, it must fail in all.

    Returns:
      The exit code: 1 if every run failed, else 0.
    """
    values: dict[str, float] = {}
    failed: dict[str, str] = {}
    metric, is_first = "", jax.process_index() == 0
    for seed in config.task.seeds:
        folder = workdir / f"seed_{seed}"
        one = dataclasses.replace(
            config,
            train=dataclasses.replace(config.train, seed=seed),
            task=dataclasses.replace(config.task, seeds=()),
        )
        try:
            metric = run(one, folder)
            value = best_value(folder, metric)
            if not math.isfinite(value):
                raise FloatingPointError(f"{metric} is {value}")
            values[str(seed)] = value
        except (ArithmeticError, OSError, RuntimeError, ValueError) as error:
            failed[str(seed)] = f"{type(error).__name__}: {error}"
            if is_first:
                print(f"seed {seed} failed: {error}")
    if is_first:
        summary = summarize(metric, values, failed)
        workdir.mkdir(parents=True, exist_ok=True)
        replace_json(workdir / "seeds.json", summary)
        print(describe(summary))
    return 0 if values else 1


def best_value(workdir: Path, metric: str) -> float:
    """Returns the largest held-out value of a metric in a run."""
    lines = read_metrics(workdir / METRICS_FILE)
    return max(line[metric] for line in lines if line["split"] == "validation")


def summarize(metric: str, values: dict[str, float], failed: dict[str, str]) -> dict[str, Any]:
    """Returns the values, failures, median and spread of the runs."""
    summary: dict[str, Any] = {"metric": metric, "values": values, "failed": failed}
    if values:
        numbers = list(values.values())
        summary |= {
            "median": statistics.median(numbers),
            "smallest": min(numbers),
            "largest": max(numbers),
        }
    return summary


def describe(summary: dict[str, Any]) -> str:
    """Returns the summary as one line."""
    runs = f"{len(summary['values'])} runs, {len(summary['failed'])} failed"
    if "median" not in summary:
        return runs
    return (
        f"{summary['metric']}: median {summary['median']:.4f}, from {summary['smallest']:.4f} "
        f"to {summary['largest']:.4f}; {runs}"
    )
