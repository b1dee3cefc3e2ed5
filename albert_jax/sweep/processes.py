"""The runs of a sweep, each a process of its own, several at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from flax import traverse_util

from albert_jax.checkpoints.run_dir import lock
from albert_jax.config import Config, config_from_dict
from albert_jax.data.files import read_object, replace_json
from albert_jax.train.preemption import EXIT_CODE

RESULT = "result.json"  # in the directory of a run that is done
_SETTINGS = "settings.json"  # of all runs, by name
_LOG = "log.txt"  # of one run, beside its directory


class Run(NamedTuple):
    """A run to do.

    Attributes:
      name: what to print.
      workdir: its directory.
      words: arguments of `albert_jax.sweep.run`.
      start: the directory of a run of the same sweep that it begins from, which is done first.
    """

    name: str
    workdir: Path
    words: Sequence[str]
    start: Path | None = None


def finished(
    runs: Sequence[Run], jobs: int, output: Path, configs: Mapping[str, Config]
) -> Iterator[tuple[Run, str]]:
    """Yields each run as it ends, with the reason why it failed, or "".

    A run that has a result is not started again. One that another process does, perhaps of a
    sweep that was killed and still saves, is waited for, and then goes on. Where each process can
    have a CPU core or more, processes share the cores evenly, on Linux.

    Args:
      runs: what to do, in this order.
      jobs: how many at once, at least 1.
      output: the directory of all runs.
      configs: settings by name, to be the same whenever runs are added or resumed there.

    Raises:
      ValueError: if `jobs` is less than 1, or settings are not as before.
      KeyboardInterrupt: on SIGTERM to a run or Ctrl-C; the other runs save their state first.
    """
    if jobs < 1:
        raise ValueError(f"--jobs={jobs} must be at least 1")
    _keep_settings(output, configs)
    waiting, free = list(runs), list(range(jobs))
    running: dict[subprocess.Popen, tuple[Run, int]] = {}
    told: list[Run] = []
    try:
        while waiting or running:
            for run in _ready(waiting, running):
                if not free:
                    break
                log = None if _is_done(run) else _claimed(run)
                if _is_done(run):  # asked again: another process may have done it by now
                    if log:
                        log.close()
                    waiting.remove(run)
                    yield run, ""
                elif log:
                    waiting.remove(run)
                    place = free.pop(0)
                    print(f"== {run.name} (log: {_log_of(run)})", flush=True)
                    running[_start(run, place, jobs, log)] = run, place
                elif run not in told:
                    told.append(run)
                    print(f"== {run.name}: another process does it; waiting", flush=True)
            time.sleep(0.1)
            for process in [one for one in running if one.poll() is not None]:
                run, place = running.pop(process)
                free.append(place)
                if process.returncode == EXIT_CODE:  # it was asked to stop, not by us
                    raise KeyboardInterrupt
                yield run, _failure(process.returncode, _log_of(run))
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait()


def _keep_settings(output: Path, configs: Mapping[str, Config]) -> None:
    """Writes the settings of runs by name, or checks that they are as before."""
    path = output / _SETTINGS
    old = read_object(path) if path.is_file() else {}
    new = {name: config.to_dict() for name, config in configs.items()}
    for name in new.keys() & old.keys():
        # A setting that did not exist then has its default.
        before = config_from_dict(old[name]).to_dict()
        a, b = (traverse_util.flatten_dict(one, sep=".") for one in (before, new[name]))
        differing = [
            f"{key}: was {a.get(key)!r}, now {b.get(key)!r}"
            for key in sorted({*a, *b})
            if a.get(key) != b.get(key)
        ]
        if differing:
            raise ValueError(
                f"{str(output)!r} holds runs with other settings: {'; '.join(differing)}. Restore "
                "them, or choose another --output"
            )
    output.mkdir(parents=True, exist_ok=True)
    replace_json(path, old | new)


def _ready(
    waiting: Sequence[Run], running: Mapping[subprocess.Popen, tuple[Run, int]]
) -> list[Run]:
    """Returns the runs that need not wait for another of this sweep."""
    undone = {run.workdir for run in (*waiting, *(run for run, _ in running.values()))}
    return [run for run in waiting if run.start not in undone]


def _is_done(run: Run) -> bool:
    return (run.workdir / RESULT).is_file()


def _claimed(run: Run) -> BinaryIO | None:
    """Returns a run's log, locked until its process ends; None if another process has it."""
    run.workdir.parent.mkdir(parents=True, exist_ok=True)
    log = _log_of(run).open("ab")
    if lock(log):
        return log
    log.close()
    return None


def _start(run: Run, place: int, jobs: int, log: BinaryIO) -> subprocess.Popen:
    command = [sys.executable, "-m", "albert_jax.sweep.run", "--parent", str(os.getpid())]
    command += [*run.words, "--workdir", str(run.workdir)]
    with log:
        log.truncate(0)
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    if jobs > 1 and sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) >= jobs:
            os.sched_setaffinity(process.pid, cores[place::jobs])
    return process


def _log_of(run: Run) -> Path:
    return run.workdir.with_name(f"{run.workdir.name}.{_LOG}")


def _failure(code: int, log: Path) -> str:
    """Returns why a run failed: the signal that ended it, or the last line that it printed."""
    if code == 0:
        return ""
    if code < 0:
        name = signal.Signals(-code).name
        why = f"ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
    else:
        text = log.read_text("utf-8", "replace")
        lines = [line for line in text.split("\n") if line.strip()]
        why = lines[-1] if lines else f"exit code {code}"
    return f"{why}; see {log.name}"
