"""Means over steps, and the files of the log."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.tasks.base import Mean, MeanSums, cross_entropy
from albert_jax.train.curves import draw_curves, read_metrics
from albert_jax.train.loggers import LOGGERS, open_log


def test_sums_are_means_of_everything_added():
    sums = MeanSums()
    sums.add({"loss": Mean(jnp.float32(3.0), 2.0), "empty": Mean(0.0, 0.0)})
    again = MeanSums(json.loads(json.dumps(sums.as_dict())))
    again.add({"loss": Mean(6.0, 1.0)})
    assert again.means() == {"loss": 3.0}
    assert again.total("loss") == 9.0
    assert sums.means() == {"loss": 1.5}


def test_cross_entropy_counts_only_what_weighs():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 5)).astype(np.float32)
    labels, weights = rng.integers(0, 5, (2, 3)), np.array([[1, 0, 1], [1, 1, 0]], np.float32)
    loss, correct = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(weights))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    picked = np.take_along_axis(probabilities, labels[..., None], -1)[..., 0]
    assert loss == pytest.approx((-np.log(picked) * weights).sum(), rel=1e-6)
    assert correct == ((logits.argmax(-1) == labels) * weights).sum()


def test_a_log_goes_on_after_a_torn_line(tmp_path: Path):
    with open_log(tmp_path, 0, 10, LOGGERS, active=True) as log:
        for step in (2, 4, 6):
            log.write(step, "train", {"mlm_loss": 1.0 / step, "mfu": None})
    path = tmp_path / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 8, "spl')
    assert [line["step"] for line in read_metrics(path)] == [2, 4, 6]
    with open_log(tmp_path, 4, 10, LOGGERS, active=True) as log:
        log.write(5, "validation", {"mlm_loss": 0.1})
    assert [line["step"] for line in read_metrics(path)] == [2, 4, 5]
    draw_curves(path, tmp_path / "curves.png", ["mlm_loss", "other"], {"mlm_loss": 2.0})
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_other_processes_write_nothing(tmp_path: Path):
    with open_log(tmp_path, 0, 10, LOGGERS, active=False) as log:
        log.write(1, "train", {"mlm_loss": 1.0})
        log.progress(1)
    assert not list(tmp_path.iterdir())
