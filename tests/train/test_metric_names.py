"""Sentence metrics carry the objective's name, in runs of before it too."""

import json

import pytest
from support.tiny_runs import tiny_config, tiny_run

from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.evaluate import evaluate
from albert_jax.train import make_experiment
from albert_jax.train.curves import read_metrics
from albert_jax.train.loop import train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ("sop", ["sop_accuracy", "sop_loss"]),
        ("nsp", ["nsp_accuracy", "nsp_loss"]),
        ("none", []),
    ],
)
def test_metrics_have_the_name_of_the_objective(objective, names, rows, tmp_path):
    train_settings = {"num_steps": 4, "eval_every": 4}
    run = tiny_run(rows, tmp_path, data={"sentence_objective": objective}, train=train_settings)
    for line in (*read_metrics(run / "metrics.jsonl"), evaluate(run)):
        assert sorted(n for n in line if n.endswith(("p_loss", "p_accuracy"))) == names
        if line.get("split") == "train":
            continue  # the mean of the steps' losses, not the loss of all their tokens
        terms = [line[name] for name in ("mlm_loss", f"{objective}_loss") if name in line]
        assert line["loss"] == pytest.approx(sum(terms), rel=1e-5)


def test_a_run_that_called_them_otherwise_goes_on(rows, tmp_path):
    settings = {"log_every": 4, "eval_every": 12, "checkpoint_every": 6}
    config = tiny_config(rows, data={"sentence_objective": "nsp"}, train=settings)
    train(make_experiment(config, tmp_path / "whole"))

    class StopError(Exception):
        pass

    experiment = make_experiment(config, tmp_path / "run")

    def batches(first):
        for step, batch in enumerate(experiment.train_batches(first), 1):
            if step == 8:
                raise StopError
            yield batch

    with pytest.raises(StopError):
        train(experiment._replace(train_batches=batches))
    # As it was written before: between two logged steps, and with the earlier names.
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("nsp_", "sop_"))
    with Checkpoints(tmp_path / "run" / "checkpoints", 3) as checkpoints:
        state, record = checkpoints.restore(6, experiment.spec.abstract_state)
    assert record["sums"]["nsp_loss"][1] > 0
    record = json.loads(json.dumps(record).replace("nsp_", "sop_"))
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        if path.name.isdecimal():
            path.rename(tmp_path / path.name)
    with Checkpoints(tmp_path / "run" / "checkpoints", 3) as checkpoints:
        checkpoints.save(6, state, record)
    train(make_experiment(config, tmp_path / "run"))
    clock = ("tokens_per_second", "model_flops_per_second", "peak_flops_per_second", "mfu")
    ours, theirs = (
        [{k: v for k, v in line.items() if k not in clock} for line in read_metrics(run)]
        for run in (metrics, tmp_path / "whole" / "metrics.jsonl")
    )
    assert ours == theirs
