"""A process of many that is lost ends the others soon, with a message, and the run goes on."""

import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from support.runs import command_for, numbers, steps_in
from support.tiny_runs import tiny_settings
from support.two_processes import start_two

from albert_jax.train.curves import read_metrics

TRAIN = {"num_steps": 30, "log_every": 1, "eval_every": 10, "checkpoint_every": 5}


@pytest.fixture(scope="module", autouse=True)
def no_cache() -> Generator[None]:
    """What process 0 alone finds compiled makes it wait for the other, for 30 s at most."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_ENABLE_COMPILATION_CACHE", "0")
        yield


@pytest.fixture(scope="module")
def whole(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that lost none."""
    folder = tmp_path_factory.mktemp("whole")
    command = command_for(tiny_settings(rows, train=TRAIN), folder / "some.py", folder / "run")
    finish(command)
    return folder / "run"


def finish(command: list[str]) -> str:
    """Runs in two processes to the end; what the first said."""
    processes = start_two(lambda _: command)
    try:
        said = [process.communicate(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    return said[0][0]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 0], ids=["the second", "the first"])
def test_the_other_ends_within_two_minutes_and_the_run_goes_on(rows, whole, tmp_path, lost):
    run = tmp_path / "run"
    command = command_for(tiny_settings(rows, train=TRAIN), tmp_path / "some.py", run)
    processes = start_two(lambda _: command)
    try:
        deadline = time.monotonic() + 900
        while not steps_in(run):
            assert time.monotonic() < deadline
            ended = [process for process in processes if process.poll() is not None]
            assert not ended, ended[0].communicate()
            time.sleep(0.005)
        processes[lost].send_signal(signal.SIGKILL)
        since = time.monotonic()
        _, err = processes[1 - lost].communicate(timeout=120)
        took = time.monotonic() - since
    finally:
        for process in processes:
            process.kill()
        processes[lost].communicate()
    print(f"ended {took:.1f} s later: {err[-600:]}")
    assert processes[1 - lost].returncode not in (0, 75)
    assert f"process {1 - lost} of 2 ends" in err or "heartbeat" in err or "died" in err
    assert 5 <= max(steps_in(run)) < 30
    assert "resumes after step" in finish(command)
    assert numbers(run) == numbers(whole)
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == 30
