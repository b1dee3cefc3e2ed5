"""A search over settings and seeds."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import Config
from albert_jax.config.load import load_config
from albert_jax.data.files import read_object, replace_json
from albert_jax.sweep.processes import RESULT, Run, finished
from albert_jax.sweep.report import write_report
from albert_jax.sweep.trials import Settings, combinations
from albert_jax.tasks.examples import QuestionExample
from albert_jax.tasks.metrics import METRICS, text_metrics
from albert_jax.tasks.registry import PRETRAINING, make_task, read_task
from albert_jax.train.seeds import best_value

Results = dict[str, dict[str, dict[str, Any]]]  # by settings, by seed


def search(
    file: str,
    output: Path,
    settings: Mapping[str, Sequence[str]],
    samples: int | None = None,
    seeds: int = 3,
    jobs: int = 1,
    overrides: Sequence[str] = (),
) -> Results:
    """Trains a config with every combination of settings, some seeds each.

    Run again, it leaves out what is done and resumes what was begun. A run that fails does not
    stop the others. After each, `results.json`, `table.md` and `table.png` are rewritten.

    Args:
      file: a config file, as `load_config` takes it.
      output: the directory of all runs: `SETTINGS/seed_N`, with what they printed beside them.
      settings: values by setting.
      samples: how many combinations to try, drawn at random; by default all.
      seeds: runs of each combination, with `train.seed` from 0.
      jobs: runs at once; on Linux, each has its share of the CPU cores.
      overrides: `--config.a.b=value` for all runs.

    Returns:
      By settings and seed: `value`, the best held-out value of the task's first metric, and
      whether the run `collapsed`; or `failed`, and why.

    Raises:
      FileNotFoundError: if there is no config or no data.
      ValueError: if a setting cannot be used, or a number is less than 1.
      KeyboardInterrupt: if it is stopped; runs save their state first.
    """
    config = load_config(file, overrides)
    _check_request(settings, seeds, overrides, config)
    chosen = combinations(settings, samples)
    words = {name: [*overrides, *_as_overrides(one)] for name, one in chosen.items()}
    configs = {name: load_config(file, one) for name, one in words.items()}
    _check_distinct(configs)
    metric, floor = _measure_of(config)
    places = {
        output / name / f"seed_{seed}": (name, seed) for name in chosen for seed in range(seeds)
    }
    runs = [
        Run(
            f"{name}, seed {seed}",
            workdir,
            ["--config", file, *words[name], f"--config.train.seed={seed}"],
        )
        for workdir, (name, seed) in places.items()
    ]
    results: Results = {name: {} for name in chosen}
    for run, failure in finished(runs, jobs, output, configs):
        name, seed = places[run.workdir]
        found = {"failed": failure} if failure else _result(run.workdir, metric, floor)
        results[name][str(seed)] = found
        count = f"{sum(map(len, results.values()))} of {len(runs)} runs"
        print(f"   {run.name}: {_told(found, metric)} ({count})", flush=True)
        ordered = {name: dict(sorted(results[name].items())) for name in chosen}
        replace_json(output / "results.json", ordered)
        write_report(output, file, metric, floor, ordered)
    return results


def _check_request(
    settings: Mapping[str, Sequence[str]], seeds: int, overrides: Sequence[str], config: Config
) -> None:
    if seeds < 1:
        raise ValueError(f"--seeds={seeds} must be at least 1")
    if taken := [key for key in settings if key in ("train.seed", "task.seeds")]:
        raise ValueError(f"--try {taken[0]}: seeds are counted by --seeds; leave it out")
    if any(word.partition("=")[0] == "--config.train.seed" for word in overrides):
        raise ValueError("--config.train.seed: --seeds counts seeds, from 0; leave it out")
    if config.task.seeds:
        raise ValueError(f"task.seeds={config.task.seeds}: --seeds counts seeds; leave it out")
    if "task.name" in settings:
        raise ValueError("--try task.name: tasks have metrics of their own; search one at a time")


def _told(found: Mapping[str, Any], metric: str) -> str:
    return found.get("failed") or f"{metric} {found['value']:.4f}"


def _as_overrides(settings: Settings) -> list[str]:
    return [f"--config.{key}={value}" for key, value in settings.items()]


def _check_distinct(configs: Mapping[str, Config]) -> None:
    seen: dict[Config, str] = {}
    for name, config in configs.items():
        if (same := seen.setdefault(config, name)) != name:
            raise ValueError(f"--try: {same!r} and {name!r} are the same settings; drop one")


def _measure_of(config: Config) -> tuple[str, float]:
    """Returns the metric that ranks runs, and its value where a model says the same of all."""
    if config.task.name == PRETRAINING:
        return "mlm_accuracy", 0.0
    data = read_task(config.task.name, config.task.data)
    task = make_task(config.task, data.labels)
    split = next((name for name in data.splits if name.startswith("validation")), None)
    if split is None:
        raise ValueError(
            f"config.task.data={config.task.data!r} has no validation set, by which runs are "
            "ranked; add one"
        )
    metric = task.reported(data.splits[split])[0]
    return metric, _of_constants(metric, data.splits[split])


def _of_constants(metric: str, examples: Sequence[Any]) -> float:
    """Returns the best value of one answer for all; 0 where no answer fits several examples."""
    if all(isinstance(one, QuestionExample) for one in examples):
        return sum(not one.answers for one in examples) / len(examples)
    labels = np.array([getattr(one, "label", None) for one in examples])
    if metric not in METRICS or labels.dtype.kind not in "iu":
        return 0.0
    return max(
        text_metrics([metric], np.full_like(labels, label), labels)[metric]
        for label in np.unique(labels)
    )


def _result(workdir: Path, metric: str, floor: float) -> dict[str, Any]:
    path = workdir / RESULT
    if not path.is_file():
        try:
            value = best_value(workdir, metric)
        except (KeyError, OSError, ValueError) as error:
            return {"failed": f"no {metric} in metrics.jsonl ({error})"}
        if not math.isfinite(value):
            return {"failed": f"{metric} is {value}"}
        replace_json(path, {"value": value, "collapsed": value <= floor})
    return read_object(path)
