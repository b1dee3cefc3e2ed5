"""A full disk ends the run in a line, leaves the earlier checkpoint whole, and is got over."""

import os
import subprocess
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from support.runs import (
    assert_same_end,
    command_for,
    error_line,
    numbers,
    start,
    state_of,
    steps_in,
)
from support.tiny_runs import tiny_config, tiny_settings

from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.config.errors import RunError
from albert_jax.train import make_experiment
from albert_jax.train.loop import train

pytestmark = pytest.mark.nightly

GROUPS = {"train": {"log_every": 1, "eval_every": 6, "checkpoint_every": 4, "keep_checkpoints": 9}}
MEGABYTES = 16


@pytest.fixture(scope="module")
def whole(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train(make_experiment(tiny_config(rows, **GROUPS), workdir))
    return workdir


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs Linux: no command mount")
    if done.returncode:
        pytest.skip(f"needs root, to mount a file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fills the disk but for `leave` bytes; the file to remove again."""
    path = disk / "filler"
    free = os.statvfs(disk)
    path.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - leave)))
    return path


def filling(experiment: Any, step: int, disk: Path, leave: int) -> Any:
    """The experiment, with the disk filled while the batch of `step` is made."""

    def batches(first: int) -> Any:
        for number, batch in enumerate(experiment.train_batches(first), first + 1):
            if number == step:
                while list(experiment.workdir.glob("checkpoints/*-tmp*")):
                    time.sleep(0.01)  # the save before is not what is to fail
                fill(disk, leave)
            yield batch

    return experiment._replace(train_batches=batches)


# Where one file of a checkpoint fails, Orbax leaves the loop that others still report to.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("step", "leave"),
    [
        pytest.param(7, 60_000, id="save"),
        pytest.param(12, 60_000, id="last save"),
        pytest.param(6, 0, id="metrics"),
        pytest.param(7, 8192, id="any"),
        pytest.param(2, 0, id="before any checkpoint"),
    ],
)
def test_the_run_ends_in_a_line_and_goes_on_when_there_is_space(
    rows, whole, disk, step, leave, capsys
):
    config, run = tiny_config(rows, **GROUPS), disk / "run"
    experiment = make_experiment(config, run)
    with pytest.raises(RunError) as caught:
        train(filling(experiment, step, disk, leave))
    told = str(caught.value)
    print(told)
    assert "\n" not in told
    assert f"{str(run)!r}: the disk is full" in told
    assert "Free some space and rerun the same command to resume" in told
    kept = steps_in(run)
    assert kept == [n for n in (4, 8) if n < step]
    if kept:
        assert f"the checkpoint of step {kept[-1]} is intact" in told
        with Checkpoints(run / "checkpoints", read_only=True) as checkpoints:
            assert checkpoints.find() == kept[-1]
        ours, theirs = (state_of(folder, config, kept[-1]) for folder in (run, whole))
        assert all((ours[path] == theirs[path]).all() for path in theirs)
    else:
        assert "no checkpoint yet" in told
    # Still full: it does not begin, and harms nothing.
    with pytest.raises(RunError, match="the disk is full"):
        train(make_experiment(config, run))
    assert steps_in(run) == kept
    (disk / "filler").unlink()
    train(make_experiment(config, run))
    assert_same_end(run, whole, config)


def test_the_command_ends_in_a_line(rows, disk, tmp_path):
    """The disk fills up by the run's own checkpoints."""
    settings = tiny_settings(rows, train={"checkpoint_every": 1, "keep_checkpoints": 99})
    fill(disk, leave=4_500_000).rename(disk / "other")
    command = command_for(settings, tmp_path / "some.py", disk / "run")
    _, err = (process := start(command)).communicate(timeout=900)
    assert process.returncode == 1, err
    line = error_line(err)
    kept = steps_in(disk / "run")
    assert 1 < len(kept) < 12
    assert f"the checkpoint of step {kept[-1]} is intact" in line
    (disk / "other").unlink()
    _, err = (process := start(command)).communicate(timeout=900)
    assert process.returncode == 0, err
    assert numbers(disk / "run")[-1]["step"] == 12
