"""Runs that are asked to stop save first, and go on to the same end."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_runs import TRAINED, tiny_config, tiny_settings, write_config

from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.checkpoints.read import read
from albert_jax.train import make_experiment
from albert_jax.train.curves import read_metrics
from albert_jax.train.loop import train
from albert_jax.train.preemption import EXIT_CODE, StopRequests

pytestmark = pytest.mark.slow


def losses(workdir: Path) -> list[tuple[Any, ...]]:
    lines = read_metrics(workdir / "metrics.jsonl")
    return [(line["step"], line["split"], line["loss"], line["mlm_loss"]) for line in lines]


def signalled(experiment: Any, step: int, *signals: signal.Signals) -> Any:
    """The experiment, with signals to this process while the batch of `step` is made."""

    def batches(first: int) -> Any:
        for number, batch in enumerate(experiment.train_batches(first), first + 1):
            if number == step:
                for one in signals:
                    os.kill(os.getpid(), one)
            yield batch

    return experiment._replace(train_batches=batches)


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_stopped_goes_on_to_the_same_bits(tmp_path, rows, trained_run, asked):
    before = signal.getsignal(asked)
    experiment = make_experiment(tiny_config(rows, **TRAINED), tmp_path / "run")
    assert int(train(signalled(experiment, 5, asked)).step) == 5
    assert signal.getsignal(asked) is before
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [4, 5]
    assert int(train(make_experiment(tiny_config(rows, **TRAINED), tmp_path / "run")).step) == 12
    assert losses(tmp_path / "run") == losses(trained_run)
    for ours, theirs in zip(arrays(tmp_path / "run"), arrays(trained_run), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def arrays(workdir: Path) -> list[Any]:
    import jax

    return jax.tree.leaves(read(str(workdir)).params)


def test_a_second_ctrl_c_stops_at_once(tmp_path, rows):
    experiment = make_experiment(tiny_config(rows, **TRAINED), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(signalled(experiment, 4, signal.SIGINT, signal.SIGINT))
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == []


def test_a_signal_at_the_last_step_changes_nothing(tmp_path, rows, trained_run):
    experiment = make_experiment(tiny_config(rows, **TRAINED), tmp_path / "run")
    assert int(train(signalled(experiment, 12, signal.SIGTERM)).step) == 12
    assert losses(tmp_path / "run") == losses(trained_run)


def test_a_checkpoint_without_metrics_is_the_newest_but_not_the_best(tmp_path, rows, trained_run):
    whole = Path(shutil.copytree(trained_run, tmp_path / "whole"))
    experiment = make_experiment(tiny_config(rows, **TRAINED), whole)
    with Checkpoints(whole / "checkpoints", read_only=True) as checkpoints:
        state, _ = checkpoints.restore(12, experiment.spec.abstract_state)
    with Checkpoints(tmp_path / "best", 1, best="score") as checkpoints:
        for step, metrics in ((2, {"score": 0.5}), (4, {"score": 0.4}), (5, {}), (7, None)):
            checkpoints.save(step, state, {}, metrics)
        assert checkpoints.latest_step == 7
    with Checkpoints(tmp_path / "best", read_only=True) as checkpoints:
        assert checkpoints.steps == [2, 7]
        assert checkpoints.find() == 2


def test_signals_are_left_alone_outside(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with StopRequests() as requests:
        assert not requests.at(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.at(2)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_with_the_code_for_trying_again(tmp_path, repo_root, rows, asked):
    settings = tiny_settings(rows, train={"num_steps": 100_000, "checkpoint_every": 100_000})
    settings["train"]["eval_every"] = 100_000
    write_config(tmp_path / "some.py", settings)
    command = [sys.executable, "-m", "albert_jax.train", "--config", str(tmp_path / "some.py")]
    command += ["--workdir", str(tmp_path / "run")]
    env = os.environ | {"PYTHONPATH": str(repo_root)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    deadline, metrics = time.monotonic() + 120, tmp_path / "run" / "metrics.jsonl"
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(asked)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == EXIT_CODE
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        (step,) = checkpoints.steps
    assert f"saved step {step}" in said
