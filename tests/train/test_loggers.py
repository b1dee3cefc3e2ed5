"""Loggers by name: a new one is one class."""

import math
from typing import ClassVar

import pytest
from support.tiny_runs import tiny_config, trained_settings

from albert_jax.config import config_from_dict
from albert_jax.train import make_experiment
from albert_jax.train.loggers import LOGGERS, Logger, open_log
from albert_jax.train.loop import train


class Tracker(Logger):
    """As one for a service would be."""

    opened: ClassVar[list["Tracker"]] = []

    def __init__(self, workdir, first_step, num_steps):
        self.run, self.begun, self.values, self.closed = workdir.name, first_step, [], False
        self.opened.append(self)

    def write(self, step, split, values):
        self.values.append((step, split, dict(values)))

    def close(self):
        self.closed = True


@pytest.fixture
def tracker(monkeypatch):
    monkeypatch.setitem(LOGGERS, "tracker", Tracker)
    monkeypatch.setattr(Tracker, "opened", [])
    return Tracker


def test_a_logger_of_ones_own_is_one_class(tracker, rows, tmp_path, capsys):
    # The steps of `trained_run`, which are compiled already.
    settings = trained_settings(
        rows, train={"log_every": 6, "eval_every": 12, "loggers": ["tracker", "terminal"]}
    )
    train(make_experiment(config_from_dict(settings), tmp_path / "run"))
    (one,) = tracker.opened
    assert (one.run, one.begun, one.closed) == ("run", 0, True)
    assert [(step, split) for step, split, _ in one.values] == [
        (6, "train"),
        (12, "train"),
        (12, "validation"),
    ]
    assert all(math.isfinite(values["mlm_loss"]) for _, _, values in one.values)
    assert "step      12  validation" in capsys.readouterr().out
    assert (tmp_path / "run" / "metrics.jsonl").exists()  # always
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_an_unknown_logger_is_refused_before_the_run_directory_is_made(rows, tmp_path):
    config = tiny_config(rows, train={"loggers": ["tensorbord"]})
    with pytest.raises(ValueError, match=r"is not a logger; did you mean 'tensorboard'"):
        make_experiment(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"config.train.loggers must be names"):
        config_from_dict({"train": {"loggers": [1]}})


def test_what_was_opened_is_closed_where_another_cannot_be(tracker, monkeypatch, tmp_path):
    class Broken(Logger):
        def __init__(self, *_):
            raise OSError("no connection")

    monkeypatch.setitem(LOGGERS, "broken", Broken)
    with pytest.raises(OSError, match="no connection"):
        open_log(tmp_path, 0, 10, ["tracker", "broken"], active=True)
    assert tracker.opened[0].closed
