"""A directory that a live run uses is refused to another, and free however that one ended."""

import signal
import time

import pytest
from support.runs import command_for, error_line, snapshot, start
from support.tiny_runs import tiny_config, tiny_settings

from albert_jax.checkpoints.run_dir import LOCK_FILE, locked
from albert_jax.config.errors import RunError
from albert_jax.evaluate import evaluate
from albert_jax.train import make_experiment
from albert_jax.train.loop import train

ENDLESS = {"num_steps": 10**6, "checkpoint_every": 2, "eval_every": 10**6, "log_every": 1}


def test_one_at_a_time(tmp_path):
    used = r"is in use by process \d+ on \S+; wait for it"
    with locked(tmp_path), pytest.raises(ValueError, match=used):
        locked(tmp_path).__enter__()
    with locked(tmp_path):
        pass
    (tmp_path / LOCK_FILE).write_text("process 1 on another host, which ended\n")
    with locked(tmp_path):
        assert "another" not in (tmp_path / LOCK_FILE).read_text()


@pytest.mark.slow
def test_a_run_refuses_and_goes_on(rows, tmp_path):
    """Nothing that training writes changes; evaluation may look on."""
    config, run = tiny_config(rows), tmp_path / "run"
    train(make_experiment(config, run))
    before = snapshot(run)
    with locked(run):
        experiment = make_experiment(config, run)
        with pytest.raises(RunError, match="is in use by process"):
            train(experiment)
        assert evaluate(run)["step"] == 12
    after = snapshot(run)
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in before.keys() - {LOCK_FILE})
    train(make_experiment(config, run))


@pytest.mark.slow
def test_a_live_command_refuses_another_and_a_killed_one_does_not(rows, tmp_path):
    run = tmp_path / "run"
    command = command_for(tiny_settings(rows, train=ENDLESS), tmp_path / "some.py", run)
    first = start(command)
    try:
        deadline = time.monotonic() + 600
        while not list((run / "checkpoints").glob("[0-9]")) and time.monotonic() < deadline:
            assert first.poll() is None
            time.sleep(0.05)
        second = start(command)
        out, err = second.communicate(timeout=600)
        assert second.returncode == 1
        assert f"in use by process {first.pid} on " in error_line(err)
        assert out == ""
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()
    third = start([*command, "--config.train.eval_every=1"])
    try:
        said = ""
        assert third.stdout is not None
        while "resumes after step" not in said:
            said = third.stdout.readline()
            assert said, third.communicate()[1]
    finally:
        third.send_signal(signal.SIGKILL)
        third.communicate()
