"""Two thousand steps with evaluations and checkpoints: memory, open files and speed stay level."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.tiny_runs import tiny_settings, write_config

STEPS, EVERY = 2000, 50
SLOW = 5  # medians: the time of a step that is too long
# Of steps by the clock, this share may be slow all the same: the machine may be busy otherwise.
# By the processor time that the run spends on it, none may.
LET_PASS = 0.005
# MB per 1,000 steps, over the second half: half a megabyte for each evaluation and checkpoint.
# About 11 are seen; drawings that waited for the garbage collector made it 46.
MOST_GROWTH = 20


class Sample(NamedTuple):
    """What the process holds at a step."""

    step: int
    own_mb: float
    files: int
    threads: int


class Done(NamedTuple):
    """When a step was done: by the clock, and by the processor time spent so far, in seconds."""

    wall: float
    cpu: float


def processor_time(pid: int) -> float:
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sample(pid: int, step: int) -> Sample:
    proc = Path("/proc") / str(pid)
    status = dict(
        line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
    )
    # Swapped out or not, but not pages of files: those the kernel drops and reads as it likes.
    own = sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem", "VmSwap"))
    files = len(os.listdir(proc / "fd"))
    return Sample(step, own / 1024, files, int(status["Threads"]))


def soak(workdir: Path, config: Path, repo_root: Path) -> tuple[list[Sample], dict[int, Done]]:
    """Runs the command; samples of the process, and when each step was done."""
    words = [sys.executable, "-m", "albert_jax.train", "--config", config, "--workdir", workdir]
    env = os.environ | {"PYTHONPATH": str(repo_root)}
    done: dict[int, Done] = {}
    samples: list[Sample] = []
    with subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=repo_root,
        env=env,
    ) as process:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.25):
                if done:
                    with contextlib.suppress(OSError, KeyError):  # it ends just now
                        samples.append(sample(process.pid, max(done)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        tail: list[str] = []
        try:
            assert process.stdout is not None
            for line in process.stdout:
                tail = [*tail[-20:], line]
                parts = line.split()
                if parts[:1] == ["step"] and parts[2] == "train":
                    done[int(parts[1])] = Done(time.monotonic(), processor_time(process.pid))
                    if max(done) == STEPS:
                        ended.set()  # what follows is the report, with a model of its own
        finally:
            ended.set()
            watcher.join()
        assert process.wait() == 0, "".join(tail)
    return samples, done


@pytest.fixture(scope="module")
def soaked(
    tmp_path_factory: pytest.TempPathFactory, repo_root: Path, rows: Path
) -> tuple[list[Sample], dict[int, Done], Path]:
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux: no /proc")
    folder = tmp_path_factory.mktemp("soak")
    train = {
        "num_steps": STEPS,
        "log_every": 1,
        "eval_every": EVERY,
        "checkpoint_every": EVERY,
        "batch_size": 32,
    }
    config = write_config(folder / "config.py", tiny_settings(rows, train=train))
    return *soak(folder / "run", config, repo_root), folder / "run"


def slope(samples: list[Sample], name: str) -> float:
    """What a value grows by in 1,000 steps, over the second half of the run."""
    half = [s for s in samples if s.step > STEPS / 2]
    steps = [s.step / 1000 for s in half]
    return float(np.polyfit(steps, [getattr(s, name) for s in half], 1)[0])


@pytest.mark.nightly
def test_memory_is_flat(soaked):
    samples, _, _ = soaked
    growth = slope(samples, "own_mb")
    first = next(s for s in samples if s.step > EVERY)
    print(
        f"{first.own_mb:.0f} MB at step {first.step}, {samples[-1].own_mb:.0f} MB at the end; "
        f"{growth:+.2f} MB per 1,000 steps in the second half"
    )
    assert len(samples) > 50
    assert growth < MOST_GROWTH


@pytest.mark.nightly
def test_open_files_and_threads_are_flat(soaked):
    samples, _, _ = soaked
    early = [s for s in samples if 2 * EVERY < s.step <= STEPS / 2]
    late = [s for s in samples if s.step > STEPS / 2]
    for name in ("files", "threads"):
        counts = [[getattr(s, name) for s in part] for part in (early, late)]
        print(f"{name}: {min(counts[0])} to {max(counts[0])} in the first half, "
              f"{min(counts[1])} to {max(counts[1])} in the second")  # fmt: skip
        # A pool may grow by a thread where things coincide; one left by each save would make 20.
        room = 2 if name == "threads" else 0
        assert np.median(counts[1]) <= np.median(counts[0]) + room
        assert max(counts[1]) <= max(counts[0]) + 2


@pytest.mark.nightly
def test_no_step_is_slow_apart_from_those_that_write(soaked):
    _, done, run = soaked
    assert sorted(done) == list(range(1, STEPS + 1))
    # Nor the step after one that writes: the writing goes on in the background.
    quiet = [step for step in range(EVERY + 2, STEPS + 1) if step % EVERY > 1]
    for name, share in {"wall": LET_PASS, "cpu": 0.0}.items():
        at = {step: getattr(moment, name) for step, moment in done.items()}
        times = {step: at[step] - at[step - 1] for step in quiet}
        median = float(np.median(list(times.values())))
        slow = {step: t for step, t in times.items() if t > SLOW * median}
        longest = max(times, key=times.__getitem__)
        print(
            f"{name}: median {1e3 * median:.1f} ms; {len(slow)} of {len(quiet)} steps are over "
            f"{SLOW}x; longest, step {longest}: {times[longest] / median:.1f}x"
        )
        assert median > 0
        assert len(slow) <= share * len(quiet)
        first, _, last = np.array_split(np.array(list(times.values())), 3)
        print(f"  mean of the last third: {np.mean(last) / np.mean(first):.2f} of the first's")
        if name == "cpu":
            assert np.mean(last) < 1.25 * np.mean(first)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["split"] == "validation" for line in lines) == STEPS / EVERY
