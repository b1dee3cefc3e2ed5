"""Steps that are not finite are skipped, told and counted; many in a row end the run."""

import dataclasses
import math
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.runs import assert_same_end, error_line, numbers, steps_in
from support.tiny_runs import tiny_config, tiny_settings, write_config

import albert_jax
from albert_jax.analysis import batches as analysis_batches
from albert_jax.config import Config
from albert_jax.config.errors import RunError
from albert_jax.train import make_experiment
from albert_jax.train.__main__ import main
from albert_jax.train.loop import train

pytestmark = pytest.mark.slow

Spoil = Callable[[int, dict[str, Any]], dict[str, Any]]


def config_of(rows: Path, **train: Any) -> Config:
    base = {"log_every": 1, "eval_every": 12, "checkpoint_every": 2, "keep_checkpoints": 99}
    return tiny_config(rows, train=base | train)


def spoiled(config: Config, workdir: Path, spoil: Spoil, stop: int = 0) -> Any:
    """An experiment on one device whose batches go through `spoil`, and fail after step `stop`."""
    experiment = make_experiment(config, workdir, jax.devices()[:1])

    def batches(first: int) -> Any:
        for step, batch in enumerate(experiment.train_batches(first), first + 1):
            if stop and step > stop:
                raise StopError
            yield spoil(step, batch)

    return experiment._replace(train_batches=batches)


class StopError(Exception):
    pass


def spoil_at(*steps: int, value: float = math.nan) -> Spoil:
    """One weight of the batch is not a number."""

    def spoil(step: int, batch: dict[str, Any]) -> dict[str, Any]:
        if step not in steps:
            return batch
        weights = np.array(batch["mlm_weights"])
        weights[0, 0] = value
        placed = jax.device_put(weights, batch["mlm_weights"].sharding)
        return batch | {"mlm_weights": placed}

    return spoil


def untouched(step: int, batch: dict[str, Any]) -> dict[str, Any]:
    return batch


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_a_step_that_is_not_finite_changes_nothing_but_the_step(rows, tmp_path, value):
    experiment = spoiled(config_of(rows), tmp_path / "run", spoil_at(3, value=value))
    key = jax.random.key(1)
    with jax.set_mesh(experiment.mesh):
        state = experiment.spec.init(jax.random.key(0))
        for step, batch in zip(range(1, 5), experiment.train_batches(0), strict=False):
            before = jax.tree.map(np.array, state)
            state, metrics = experiment.train_step(state, batch, key)
            after = jax.tree.map(np.array, state)
            same = [
                np.array_equal(a, b)
                for a, b in zip(
                    jax.tree.leaves(before[1:]), jax.tree.leaves(after[1:]), strict=True
                )
            ]
            assert int(after.step) == step
            assert metrics["skipped"].total == (step == 3)
            assert all(same) if step == 3 else not all(same)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
            if step == 3:
                assert not math.isfinite(metrics["loss"].total)


def test_it_is_told_with_its_documents_and_counted(rows, tmp_path, capsys):
    config = config_of(rows, log_every=4)
    train(spoiled(config, tmp_path / "run", spoil_at(5, 7)))
    said = capsys.readouterr().out
    lines = re.findall(r"step +(\d+)  loss nan, gradient norm nan: update skipped; (.*)", said)
    assert [int(step) for step, _ in lines] == [5, 7]
    run = analysis_batches.RunView(tmp_path / "run")
    for step, rest in lines:
        views = [run.view(int(step), place) for place in range(config.train.batch_size)]
        holding = {chunk.document for view in views for chunk in view.chunks}
        assert rest.startswith("bad step 1 of at most 10 in a row; documents ")
        named = [int(n) for n in rest.rpartition("documents ")[2].partition(" and ")[0].split(",")]
        assert named == sorted(holding)[:20]
    logged = [line for line in numbers(tmp_path / "run") if line["split"] == "train"]
    assert [line["skipped"] for line in logged] == [0, 2, 0]
    assert all(math.isfinite(value) for line in logged for value in list(line.values())[2:])


def test_rates_follow_the_updates_that_were_done(rows, tmp_path):
    for name, spoil in (("whole", untouched), ("spoiled", spoil_at(3, 4))):
        train(spoiled(config_of(rows), tmp_path / name, spoil))
    whole, skipping = (
        [line["learning_rate"] for line in numbers(tmp_path / name) if line["split"] == "train"]
        for name in ("whole", "spoiled")
    )
    assert skipping[:2] == whole[:2]
    assert skipping[4:] == whole[2:-2]


@pytest.mark.parametrize("stop", [3, 7])
def test_a_run_with_bad_steps_resumes_bit_identical(rows, tmp_path, stop):
    """Steps are skipped on both sides of where it stops, and losses leap."""
    config, spoil = (
        config_of(rows, max_loss_rise=1e-3, max_bad_steps=99, log_every=5),
        spoil_at(3, 6),
    )
    # Hardly learning, so that losses go up and down.
    slow = dataclasses.replace(config.optimizer, learning_rate=1e-5)
    config = dataclasses.replace(config, optimizer=slow)
    train(spoiled(config, tmp_path / "whole", spoil))
    with pytest.raises(StopError):
        train(spoiled(config, tmp_path / "half", spoil, stop))
    train(spoiled(config, tmp_path / "half", spoil))
    assert_same_end(tmp_path / "half", tmp_path / "whole", config)
    logged = [line for line in numbers(tmp_path / "whole") if line["split"] == "train"]
    assert sum(line["skipped"] for line in logged) == 2
    assert sum(line.get("spikes", 0) for line in logged) > 0


def test_leaps_are_those_above_the_mean_of_the_good_steps(rows, tmp_path, capsys):
    config = config_of(rows, max_loss_rise=0.01, max_bad_steps=99, num_steps=40)
    train(spoiled(config, tmp_path / "run", untouched))
    told = [
        int(n) for n in re.findall(r"step +(\d+)  loss \S+, \S+ above", capsys.readouterr().out)
    ]
    good, leaps = [], []
    for line in numbers(tmp_path / "run"):
        if line["split"] == "train":
            if good and line["loss"] > statistics.fmean(good) + 0.01:
                leaps.append(line["step"])
                assert line["spikes"] == 1
            else:
                good.append(line["loss"])
                assert "spikes" not in line
    assert told == leaps
    assert len(leaps) > 3


def test_many_in_a_row_end_the_run_and_no_checkpoint_is_of_them(rows, tmp_path, capsys):
    config = config_of(rows, max_bad_steps=3)
    with pytest.raises(RunError, match=r"step 7: loss nan.*max_bad_steps=3 bad steps in a row"):
        train(spoiled(config, tmp_path / "run", spoil_at(5, 6, 7)))
    assert steps_in(tmp_path / "run") == [2, 4]
    assert "bad step 3 of at most 3 in a row" in capsys.readouterr().out
    # Past them with a larger number, and to the end that a run has which was never stopped.
    config = config_of(rows, max_bad_steps=4)
    train(spoiled(config, tmp_path / "run", spoil_at(5, 6, 7)))
    train(spoiled(config, tmp_path / "whole", spoil_at(5, 6, 7)))
    assert_same_end(tmp_path / "run", tmp_path / "whole", config)
    # The save that was due at step 6 came with the first good step.
    assert steps_in(tmp_path / "run") == [2, 4, 8, 10, 12]


HOPELESS = {"learning_rate": 1e30, "warmup_steps": 1}  # from the second update on


def test_the_command_ends_in_a_line(rows, tmp_path, capsys):
    settings = tiny_settings(
        rows, optimizer=HOPELESS, train={"max_bad_steps": 2, "checkpoint_every": 1}
    )
    write_config(tmp_path / "some.py", settings)
    command = ["--config", str(tmp_path / "some.py"), "--workdir", str(tmp_path / "run")]
    assert main(command) == 1
    line = error_line(capsys.readouterr().err)
    assert "max_bad_steps=2" in line
    assert steps_in(tmp_path / "run")


def test_debugging_names_the_operation_and_the_input(rows, tmp_path):
    """An infinite weight, divided by a sum that is infinite."""
    config = config_of(rows, debug_nans=True)
    with pytest.raises(RunError) as caught:
        train(spoiled(config, tmp_path / "run", spoil_at(5, value=math.inf)))
    line = str(caught.value)
    print(line)
    assert line.startswith("step 5 is not finite: nan generated by primitive")
    found = re.search(r"albert_jax/([\w/]+\.py):(\d+) \(\S+: (.*)\); ", line)
    assert found is not None
    file, number, code = found.groups()
    assert file in ("train/step.py", "tasks/base.py")
    source = Path(albert_jax.__file__).parent / file
    assert code == source.read_text().splitlines()[int(number) - 1].strip()
    assert line.endswith("not finite before the step: batch/mlm_weights")


def test_debugging_names_the_operation_in_the_model(rows, tmp_path):
    """A parameter so large that attention overflows."""
    config = config_of(rows, debug_nans=True)
    experiment = spoiled(config, tmp_path / "run", untouched)

    def init(key: Any) -> Any:
        state = experiment.spec.init(key)
        kernel = state.params["encoder"]["group_0"]["inner_group_0"]["attention"]["query"]
        kernel["kernel"] = kernel["kernel"] + 3e38
        return state

    with pytest.raises(RunError) as caught:
        train(experiment._replace(spec=experiment.spec._replace(init=init)))
    print(caught.value)
    assert re.search(r"albert_jax/model/\w+\.py:\d+", str(caught.value))
    assert str(caught.value).endswith("not finite before the step: nothing")


def test_debugging_changes_no_number(rows, tmp_path):
    train(spoiled(config_of(rows), tmp_path / "one", untouched))
    train(spoiled(config_of(rows, debug_nans=True), tmp_path / "other", untouched))
    assert numbers(tmp_path / "one") == numbers(tmp_path / "other")
