"""Damaged checkpoints are noticed, named and passed over; nothing is lost or overwritten."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.runs import assert_same_end, numbers, snapshot, steps_in
from support.tiny_runs import TRAINED, tiny_config

import albert_jax
from albert_jax.checkpoints.checksums import FILE, damage_of, seal
from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.checkpoints.read import read
from albert_jax.config.errors import RunError
from albert_jax.evaluate import evaluate
from albert_jax.evaluate import main as evaluate_command
from albert_jax.train import make_experiment
from albert_jax.train.initialization import wants_start
from albert_jax.train.loop import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def whole(trained_run: Path) -> Path:
    return trained_run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A run of 12 steps with checkpoints at 4, 8 and 12, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def flip(path: Path, at: float = 0.5) -> None:
    """Turns one bit over."""
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * at), len(data) - 1)] ^= 0x10
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def largest(run: Path, step: int, part: str = "params") -> Path:
    files = (run / "checkpoints" / str(step) / part).rglob("*")
    return max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size)


# How many files Orbax writes varies from run to run; each checkpoint has these and arrays' data.
PARTS = {"optimizer", "params", "record"}
LATE = {"_CHECKPOINT_METADATA", "commit_success.txt"}  # written after the checksums, never read


def assert_whole(names: set[str]) -> None:
    """These are files of every part of a checkpoint, and data of both that have arrays."""
    assert {Path(name).parts[0] for name in names if "/" in name} == PARTS
    arrays = {Path(name).parts[0] for name in names if "/d/" in name}
    assert arrays == {"optimizer", "params"}


DAMAGES: dict[str, Callable[[Path], Any]] = {"flipped": flip, "cut": cut, "lost": Path.unlink}


def test_the_checksums_are_what_sha256sum_reads(whole):
    folder = whole / "checkpoints" / "12"
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", FILE], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    named = {line.partition(": ")[0] for line in done.stdout.splitlines()}
    assert named == snapshot(folder).keys() - LATE - {FILE}
    assert_whole(named)


def test_every_damage_to_every_file_is_found(whole, tmp_path):
    """One bit, the last byte, or all of each file of a checkpoint, its checksums included."""
    folder = Path(shutil.copytree(whole / "checkpoints" / "12", tmp_path / "12"))
    (folder / "empty").touch()
    seal(folder, without=tuple(LATE))
    assert damage_of(folder) is None
    draw = np.random.default_rng(0)
    files = {name: data for name, data in snapshot(folder).items() if name not in LATE}
    assert_whole(files.keys() - {FILE, "empty"})
    for name, data in files.items():
        for how, damage in DAMAGES.items():
            if (not data and how != "lost") or (name == FILE and how == "lost"):
                continue
            damage(folder / name) if how != "flipped" else flip(folder / name, draw.random())
            found = damage_of(folder)
            assert found is not None, (name, how)
            assert name in found, (name, how)
            (folder / name).write_bytes(data)
    assert damage_of(folder) is None


@pytest.mark.parametrize("how", DAMAGES)
def test_a_run_goes_on_from_the_one_before_to_the_same_bits(run, whole, rows, how, capsys):
    hurt = largest(run, 12, "optimizer" if how == "cut" else "params")
    DAMAGES[how](hurt)
    bytes_before = snapshot(run / "checkpoints" / "12")
    train(make_experiment(tiny_config(rows, **TRAINED), run))
    said = capsys.readouterr().out
    assert "the checkpoint of step 12 is damaged" in said
    assert str(hurt.relative_to(run / "checkpoints" / "12")) in said
    assert "12.damaged" in said
    assert "resumes after step 8" in said
    assert snapshot(run / "checkpoints" / "12.damaged") == bytes_before
    assert steps_in(run) == [4, 8, 12]
    assert_same_end(run, whole, tiny_config(rows, **TRAINED))


def test_two_damaged_ones_are_passed_over_and_names_are_not_used_twice(run, whole, rows):
    (run / "checkpoints" / "12.damaged").mkdir()
    for step in (8, 12):
        flip(largest(run, step))
    train(make_experiment(tiny_config(rows, **TRAINED), run))
    assert steps_in(run) == [4, 8, 12]
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {"4", "8", "12", "8.damaged", "12.damaged", "12.damaged.1"}
    assert numbers(run) == numbers(whole)


def test_where_none_is_whole_nothing_is_done(run, rows):
    for step in (4, 8, 12):
        flip(largest(run, step))
    before = snapshot(run)
    experiment = make_experiment(tiny_config(rows, **TRAINED), run)
    with pytest.raises(RunError, match=r"no intact .* step 12 \(params.*step 8 .*step 4 .*copy"):
        train(experiment)
    assert snapshot(run).keys() - {".lock"} == before.keys() - {".lock"}
    for name in before.keys() - {".lock"}:
        assert (run / name).read_bytes() == before[name]
    for look in (read, albert_jax.load, evaluate):
        with pytest.raises(ValueError, match=r"no intact checkpoint among step 12"):
            look(run)


def test_readers_pass_over_a_damaged_one_and_change_nothing(run, whole, capsys):
    flip(largest(run, 12))
    before = snapshot(run)
    assert read(run).step == 8
    assert "12, which is damaged: params/" in capsys.readouterr().err
    assert evaluate(run)["step"] == 8
    assert "12, which is damaged" in capsys.readouterr().err
    assert evaluate(whole, 8) == evaluate(run)
    with pytest.raises(ValueError, match=r"no intact checkpoint among step 12 "):
        albert_jax.load(run, step=12)
    assert evaluate_command(["--workdir", str(run), "--step", "12"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert snapshot(run) == before


def test_the_best_is_passed_over_for_the_next_best(tmp_path, rows, whole):
    experiment = make_experiment(tiny_config(rows, **TRAINED), whole)
    with Checkpoints(whole / "checkpoints", read_only=True) as checkpoints:
        state, _ = checkpoints.restore(12, experiment.spec.abstract_state)
    folder = tmp_path / "run" / "checkpoints"
    scores = {2: 0.3, 4: 0.5, 6: 0.4, 7: None}
    with Checkpoints(folder, best="score") as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, state, {}, {"score": score} if score else None)
    for hurt, best in ((None, 4), (4, 6), (6, 2), (2, 7)):
        if hurt:
            flip(largest(tmp_path / "run", hurt, "record" if hurt == 6 else "params"))
        with Checkpoints(folder, read_only=True) as checkpoints:
            assert checkpoints.find() == best


def test_one_without_checksums_is_read_and_said(run, capsys):
    (run / "checkpoints" / "12" / FILE).unlink()
    assert read(run).step == 12
    assert "has no checksums: reading it unchecked" in capsys.readouterr().err


def test_a_run_killed_in_its_first_save_still_begins_with_the_weights_it_was_given(
    run, rows, tmp_path
):
    config = tiny_config(rows, **TRAINED)
    begun = tmp_path / "begun"
    (begun / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir(parents=True)
    values = config.to_dict() | {"init_from": str(run)}
    config = albert_jax.config.config_from_dict(values)
    assert wants_start(config, begun)
    (begun / "checkpoints" / "4").mkdir()
    assert not wants_start(config, begun)
