"""A search over settings and seeds: every run a process of its own, several at once."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from albert_jax.config import Config
from albert_jax.config.load import load_config
from albert_jax.data.files import read_object, replace_json
from albert_jax.sweep.report import write_report
from albert_jax.sweep.trials import Settings, combinations
from albert_jax.tasks.metrics import METRICS, text_metrics
from albert_jax.tasks.registry import PRETRAINING, make_task, read_task
from albert_jax.train.preemption import EXIT_CODE
from albert_jax.train.seeds import best_value

Results = dict[str, dict[str, dict[str, Any]]]  # by settings, by seed
_RESULT, _LOG = "result.json", "log.txt"  # in a run's directory, and beside it
_SHARED = "settings.json"  # of all runs


class _Run(NamedTuple):
    """A run to do: its place in the results, its directory, and its command."""

    name: str
    seed: int
    workdir: Path
    command: list[str]


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
      whether the run `collapsed`; or `failed`, with the last line that it printed.

    Raises:
      FileNotFoundError: if there is no config or no data.
      ValueError: if a setting cannot be used, or a number is less than 1.
      KeyboardInterrupt: if it is stopped; runs save their state first.
    """
    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value < 1:
            raise ValueError(f"--{name}={value} must be at least 1")
    if taken := [key for key in settings if key in ("train.seed", "task.seeds")]:
        raise ValueError(f"--try {taken[0]}: seeds are counted by --seeds; leave it out")
    if "task.name" in settings:
        raise ValueError("--try task.name: tasks have metrics of their own; search one at a time")
    chosen = combinations(settings, samples)
    _check_distinct(file, chosen, overrides)
    metric, floor = _measure_of(load_config(file, overrides))
    _keep_settings(output, load_config(file, overrides).to_dict())
    runs = [
        _Run(name, seed, output / name / f"seed_{seed}", _command(file, one, overrides))
        for name, one in chosen.items()
        for seed in range(seeds)
    ]
    results: Results = {name: {} for name in chosen}
    for run, code in _finished(runs, jobs):
        results[run.name][str(run.seed)] = _result(run, code, metric, floor)
        ordered = {name: dict(sorted(results[name].items())) for name in chosen}
        replace_json(output / "results.json", ordered)
        write_report(output, file, metric, floor, ordered)
    return results


def _check_distinct(file: str, chosen: Mapping[str, Settings], overrides: Sequence[str]) -> None:
    """Checks the settings of all runs before the first, and that no two are the same."""
    seen: dict[Config, str] = {}
    for name, one in chosen.items():
        config = load_config(file, [*overrides, *_as_overrides(one)])
        if (same := seen.setdefault(config, name)) != name:
            raise ValueError(f"--try: {same!r} and {name!r} are the same settings; drop one")


def _keep_settings(output: Path, settings: dict[str, Any]) -> None:
    """Writes the settings that all runs share, or checks that they are as before."""
    path = output / _SHARED
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        old, new = (traverse_util.flatten_dict(s, sep=".") for s in (read_object(path), settings))
        differing = [
            f"{key}: was {old.get(key)!r}, now {new.get(key)!r}"
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        ]
        if differing:
            raise ValueError(
                f"{str(output)!r} holds runs with other settings: {'; '.join(differing)}. Restore "
                "them, or choose another --output"
            )
    output.mkdir(parents=True, exist_ok=True)
    replace_json(path, settings)


def _as_overrides(settings: Settings) -> list[str]:
    return [f"--config.{key}={value}" for key, value in settings.items()]


def _command(file: str, settings: Settings, overrides: Sequence[str]) -> list[str]:
    train = [sys.executable, "-m", "albert_jax.train", "--config", file]
    return [*train, *overrides, *_as_overrides(settings)]


def _measure_of(config: Config) -> tuple[str, float]:
    """Returns the metric that ranks runs, and its value where a model says the same of all."""
    if config.task.name == PRETRAINING:
        return "mlm_accuracy", 0.0
    data = read_task(config.task.name, config.task.data)
    task = make_task(config.task, data.labels)
    split = next(name for name in data.splits if name.startswith("validation"))
    metric = task.reported(data.splits[split])[0]
    return metric, _of_constants(metric, data.splits[split])


def _of_constants(metric: str, examples: Sequence[Any]) -> float:
    """Returns the best value of one class for all; 0 where examples have no single class."""
    labels = np.array([getattr(one, "label", None) for one in examples])
    if metric not in METRICS or labels.dtype.kind not in "iu":
        return 0.0
    return max(
        text_metrics([metric], np.full_like(labels, label), labels)[metric]
        for label in np.unique(labels)
    )


def _finished(runs: Sequence[_Run], jobs: int) -> Iterator[tuple[_Run, int | None]]:
    """Yields each run with its exit code as it ends; None for what was done before."""
    waiting, free = list(runs), list(range(jobs))
    running: dict[subprocess.Popen, tuple[_Run, int]] = {}
    try:
        while waiting or running:
            while waiting and free:
                run = waiting.pop(0)
                if (run.workdir / _RESULT).is_file():
                    yield run, None
                    continue
                place = free.pop(0)
                print(f"== {run.name}, seed {run.seed}", flush=True)
                running[_start(run, place, jobs)] = run, place
            time.sleep(0.1)
            for process in [one for one in running if one.poll() is not None]:
                run, place = running.pop(process)
                free.append(place)
                if process.returncode == EXIT_CODE:  # it was asked to stop, not by us
                    raise KeyboardInterrupt
                yield run, process.returncode
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait()


def _start(run: _Run, place: int, jobs: int) -> subprocess.Popen:
    run.workdir.parent.mkdir(parents=True, exist_ok=True)
    words = [*run.command, f"--config.train.seed={run.seed}", "--workdir", str(run.workdir)]
    with _log_of(run).open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    if jobs > 1 and sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) >= jobs:
            os.sched_setaffinity(process.pid, cores[place::jobs])
    return process


def _log_of(run: _Run) -> Path:
    return run.workdir.with_name(f"{run.workdir.name}.{_LOG}")


def _result(run: _Run, code: int | None, metric: str, floor: float) -> dict[str, Any]:
    path = run.workdir / _RESULT
    if code:
        return {"failed": f"{_reason(code, _log_of(run))}; see {_log_of(run).name}"}
    if not path.is_file():
        try:
            value = best_value(run.workdir, metric)
        except (KeyError, OSError, ValueError) as error:
            return {"failed": f"no {metric} in metrics.jsonl ({error})"}
        if not math.isfinite(value):
            return {"failed": f"{metric} is {value}"}
        replace_json(path, {"value": value, "collapsed": value <= floor})
    return read_object(path)


def _reason(code: int, log: Path) -> str:
    """Returns why a run failed: the signal that ended it, or the last line that it printed."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
    lines = [line for line in log.read_text("utf-8", "replace").split("\n") if line.strip()]
    return lines[-1] if lines else f"exit code {code}"
