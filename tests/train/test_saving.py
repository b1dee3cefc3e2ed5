"""Saving by the clock."""

import pytest
from support.runs import steps_in
from support.tiny_runs import trained_settings

from albert_jax.config import TrainConfig, config_from_dict
from albert_jax.train import make_experiment, saving
from albert_jax.train.loop import train


class Clock:
    """Moves on by a minute each time it is read."""

    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        self.seconds += 60
        return self.seconds


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (2.5, [6, 8, 12]),
        pytest.param(0.0, [8, 12], marks=pytest.mark.slow),
        pytest.param(0.5, [2, 4, 6, 8, 10, 12], marks=pytest.mark.slow),
        pytest.param(1e6, [8, 12], marks=pytest.mark.slow),
    ],
)
def test_a_run_saves_by_steps_and_by_the_clock(minutes, expected, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "time", Clock())
    settings = {
        "log_every": 2, "checkpoint_every": 8, "eval_every": 12, "keep_checkpoints": 20,
        "checkpoint_minutes": minutes,
    }  # fmt: skip
    config = config_from_dict(trained_settings(rows, train=settings))
    train(make_experiment(config, tmp_path / "run"))
    assert steps_in(tmp_path / "run") == expected


def test_all_processes_go_by_the_clock_of_the_first(monkeypatch):
    heard = []

    def said_by_first(number):
        heard.append(number)
        return 1  # process 0 is late, this one is not

    monkeypatch.setattr(saving, "said_by_first", said_by_first)
    config = TrainConfig(checkpoint_every=1000, checkpoint_minutes=60.0, log_every=10)
    times = saving.SaveTimes(config)
    assert [step for step in range(1, 31) if times.at(step)] == [10, 20, 30]
    assert heard == [0, 0, 0]


def test_minutes_below_zero_are_refused():
    with pytest.raises(ValueError, match="checkpoint_minutes"):
        config_from_dict({"train": {"checkpoint_minutes": -1.0}})
