"""A run goes on on other hardware: the same data in the same order, losses equal to rounding."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.runs import command_for, numbers, steps_in
from support.tiny_runs import tiny_config, tiny_settings
from support.two_processes import DEVICES, start_two

from albert_jax.train import make_experiment
from albert_jax.train.loop import train

TRAIN = {"log_every": 1, "eval_every": 3, "checkpoint_every": 3, "keep_checkpoints": 9}


class StopError(Exception):
    pass


def go_on(rows: Path, workdir: Path, devices: int, end: int) -> list[dict[str, np.ndarray]]:
    """Trains on so many devices, fails after step `end`; the batches that were fed."""
    experiment, fed = (
        make_experiment(tiny_config(rows, train=TRAIN), workdir, jax.devices()[:devices]),
        [],
    )

    def batches(first: int) -> Any:
        for step, batch in enumerate(experiment.train_batches(first), first + 1):
            if step > end:
                raise StopError
            assert len(batch["input_ids"].sharding.device_set) == devices
            fed.append(jax.tree.map(np.asarray, batch))
            yield batch

    try:
        train(experiment._replace(train_batches=batches))
    except StopError:
        assert end < 12
    return fed


def assert_equal_to_rounding(one: Path, other: Path) -> None:
    lines, others = numbers(one), numbers(other)
    assert [(m["step"], m["split"]) for m in lines] == [(m["step"], m["split"]) for m in others]
    assert {m["step"] for m in lines} == set(range(1, 13))
    for mine, theirs in zip(lines, others, strict=True):
        assert mine.pop("split") == theirs.pop("split")
        assert mine == pytest.approx(theirs, rel=1e-4), mine["step"]


@pytest.mark.slow
def test_1_then_8_then_2_devices_then_2_processes(rows, tmp_path):
    one, run = tmp_path / "one", tmp_path / "run"
    expected = go_on(rows, one, devices=1, end=12)
    fed = []
    for devices, end in ((1, 3), (8, 6), (2, 9)):
        fed += go_on(rows, run, devices, end)
        assert steps_in(run)[-1] == end
    assert len(fed) == 9
    for ours, theirs in zip(fed, expected, strict=False):
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            np.testing.assert_array_equal(ours[name], array, err_msg=name)
    command = command_for(tiny_settings(rows, train=TRAIN), tmp_path / "some.py", run)
    processes = start_two(lambda _: command)
    try:
        said = [process.communicate(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    assert "resumes after step 9" in said[0][0]
    assert f"{2 * DEVICES} × " in said[0][0]
    assert_equal_to_rounding(run, one)
