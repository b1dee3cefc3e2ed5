"""Runs whose rows grow longer: what each step gets, one state throughout, exact resume."""

from pathlib import Path

import jax
import numpy as np
import pytest
from support.runs import assert_same_end, numbers
from support.tiny_runs import tiny_config

from albert_jax.analysis.batches import RunView
from albert_jax.checkpoints.read import read
from albert_jax.config import Config
from albert_jax.config.phases import folder_of_length, phase_at, phases_of
from albert_jax.data.row_reader import open_rows
from albert_jax.evaluate import evaluate
from albert_jax.inspect import main as inspect
from albert_jax.prepare.__main__ import main as prepare
from albert_jax.train import make_experiment
from albert_jax.train.experiment import Experiment
from albert_jax.train.initialization import repeat_positions
from albert_jax.train.loop import train

SHORT = {"phases": ("16:0.25", "32:0.5")}  # steps 1 to 3, 4 to 9 and 10 to 12
TRAIN = {"log_every": 1, "eval_every": 4, "checkpoint_every": 2, "keep_checkpoints": 9}


@pytest.fixture(scope="module")
def rows(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 16, 32 and 64 slots, from one command."""
    output = tmp_path_factory.mktemp("rows") / "rows"
    words = ["--input", str(text_folder / "texts.jsonl"), "--output", str(output)]
    words += ["--tokenizer", str(text_folder / "tokenizer.model"), "--num_workers", "1"]
    assert prepare([*words, "--validation_fraction=0.2", "--seq_len", "64", "16", "32"]) == 0
    return output


# Decay would move positions that no row has.
OPTIMIZER = {"weight_decay": 0.0}


def phased(rows: Path) -> Config:
    return tiny_config(rows, data=SHORT, train=TRAIN, optimizer=OPTIMIZER)


def experiment_in(workdir: Path, rows: Path) -> Experiment:
    """On one device, for which a program compiles in a third of the time."""
    return make_experiment(phased(rows), workdir, jax.devices()[:1])


@pytest.fixture(scope="module")
def finished(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    experiment = experiment_in(tmp_path_factory.mktemp("whole") / "run", rows)
    train(experiment)
    return experiment


@pytest.fixture
def whole(finished: Experiment) -> Path:
    return finished.workdir


def test_steps_are_shared_out(rows):
    phases = phases_of(phased(rows).data, phased(rows).train)
    found = [(p.data.seq_len, p.batch_size, p.first_step, p.num_steps) for p in phases]
    assert found == [(16, 32, 0, 3), (32, 16, 3, 6), (64, 8, 9, 3)]
    lengths = [phase_at(phases, step).data.seq_len for step in range(13)]
    assert lengths == [16] * 4 + [32] * 6 + [64] * 3


def test_a_share_of_less_than_half_a_step_is_no_phase(rows):
    config = tiny_config(rows, data={"phases": ("16:0.04", "32:0.5")})
    found = [phase.data.seq_len for phase in phases_of(config.data, config.train)]
    assert found == [32, 64]


@pytest.mark.parametrize("length", [16, 32])
def test_shorter_rows_are_those_of_a_command_of_their_own(length, rows, text_folder, tmp_path):
    words = ["--input", str(text_folder / "texts.jsonl"), "--output", str(tmp_path / "rows")]
    words += ["--tokenizer", str(text_folder / "tokenizer.model"), "--num_workers", "1"]
    assert prepare([*words, "--validation_fraction=0.2", f"--seq_len={length}"]) == 0
    for split in ("train", "validation"):
        alone, shorter = (
            open_rows(folder, split)
            for folder in (tmp_path / "rows", folder_of_length(rows, length))
        )
        assert len(alone) == len(shorter) > 0
        for row in range(len(alone)):
            for name, array in alone[row].items():
                np.testing.assert_array_equal(array, shorter[row][name])


def test_batches_have_the_shape_of_their_phase(rows, tmp_path):
    experiment = experiment_in(tmp_path / "run", rows)
    shapes = [batch["input_ids"].shape for batch in experiment.train_batches(0)]
    assert shapes == [(32, 16)] * 3 + [(16, 32)] * 6 + [(8, 64)] * 3
    for first in (2, 3, 9, 11):
        later = [batch["input_ids"].shape for batch in experiment.train_batches(first)]
        assert later == shapes[first:]


def test_each_phase_is_compiled_once(finished):
    assert finished.train_step._cache_size() == 3


@pytest.mark.parametrize(
    "stop", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(10, marks=pytest.mark.slow)]
)  # in the first phase, after a seam, in the last
def test_resume_is_exact_across_the_seams(stop, whole, rows, tmp_path):
    experiment = experiment_in(tmp_path / "run", rows)

    def batches(first: int):
        for step, batch in enumerate(experiment.train_batches(first), first + 1):
            if step > stop:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        train(experiment._replace(train_batches=batches))
    train(experiment_in(tmp_path / "run", rows))
    assert_same_end(tmp_path / "run", whole, phased(rows))


def test_positions_are_learnt_once_rows_reach_them(whole):
    at = {step: read(whole, step=step).params for step in (2, 4, 8, 10, 12)}
    tables = {s: p["embeddings"]["position_embed"]["embedding"] for s, p in at.items()}

    def moved(before: int, after: int) -> list[bool]:
        changed = (tables[before] != tables[after]).any(axis=1)
        return [bool(part.any()) for part in np.split(changed, [16, 32])]

    # Those that short rows do not have are copied when rows grow, at steps 4 and 10.
    assert moved(2, 4) == [True, True, True]
    assert moved(4, 8) == [True, True, False]
    assert moved(8, 12) == [True, True, True]


def test_learnt_positions_are_repeated(rows, tmp_path):
    config = phased(rows)
    spec = experiment_in(tmp_path / "run", rows).spec
    params = spec.init(jax.random.key(0)).params
    repeated = repeat_positions(params, 16)
    before, after = (p["embeddings"]["position_embed"]["embedding"] for p in (params, repeated))
    count = config.model.max_position_embeddings
    np.testing.assert_array_equal(after, np.asarray(before)[np.arange(count) % 16])
    assert after.sharding == before.sharding
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), params, repeated)
    assert sum(jax.tree.leaves(changed)) == 1


def test_held_out_rows_are_of_the_phase(whole):
    found = [(m["step"], m["seq_len"]) for m in numbers(whole) if m["split"] == "validation"]
    assert found == [(4, 32), (8, 32), (12, 64)]
    for step, length in ((2, 16), (8, 32), (12, 64)):
        assert evaluate(whole, step)["seq_len"] == length
    logged = next(m for m in numbers(whole) if m["split"] == "validation" and m["step"] == 8)
    assert evaluate(whole, 8)["loss"] == pytest.approx(logged["loss"], rel=1e-6)


def test_inspect_shows_the_batch_of_the_phase(whole, rows, capsys):
    run = RunView(whole)
    batches = list(make_experiment(phased(rows), whole).train_batches(0))
    for step, length, size in ((1, 16, 32), (4, 32, 16), (12, 64, 8)):
        inputs = np.asarray(jax.device_get(batches[step - 1]["input_ids"]))
        for place in (0, size - 1):
            view = run.view(step, place)
            assert view.slots == length
            shown = [slot.given for chunk in view.chunks for slot in (*chunk.a, *chunk.b)]
            assert shown == [i for i in inputs[place].tolist() if i > 3 or i == 1]
    document = run.view(11, 0).chunks[0].document
    step, places = run.next_step(document, 10)
    assert step in (10, 11)
    assert step < 11 or 0 in places
    assert inspect(["--workdir", str(whole), "--step", "5", "--row", "15"]) == 0
    assert " of 32 slots" in capsys.readouterr().out
    assert inspect(["--workdir", str(whole), "--step", "12", "--row", "8"]) == 1
    assert "--row 8 must be from 0 to 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (("16",), "'16' must be LENGTH:SHARE"),
        (("16:90",), "'16:90' must be LENGTH:SHARE"),
        (("16:0.0",), "'16:0.0' must be LENGTH:SHARE"),
        (("48:0.5",), "length 48 must divide data.seq_len=64"),
        (("64:0.5",), "length 64 must divide data.seq_len=64 and be less"),
        (("32:0.5", "16:0.1"), "sort them by length"),
        (("16:0.5", "32:0.5"), "must add up to less than 1"),
    ],
)
def test_impossible_phases_are_refused(phases, message, rows):
    with pytest.raises(ValueError, match=message):
        tiny_config(rows, data={"phases": phases})


@pytest.mark.parametrize("folder", ["rows", "nowhere"])
def test_rows_that_were_not_prepared_are_refused(folder, text_folder, tmp_path):
    config = tiny_config(text_folder / folder, data={"phases": ("32:0.5",)})
    message = r"has no rows of 32 for data\.phases; prepare it with --seq_len 32 64"
    with pytest.raises(FileNotFoundError, match=message):
        make_experiment(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lengths_that_do_not_divide_are_refused(text_folder, tmp_path, capsys):
    words = ["--input", str(text_folder / "texts.jsonl"), "--output", str(tmp_path / "rows")]
    assert prepare([*words, "--seq_len", "48", "64"]) == 1
    assert "seq_len 48: must divide the longest, 64" in capsys.readouterr().err


def test_one_length_has_the_fingerprint_it_always_had():
    from albert_jax.prepare.settings import RowSettings, Settings

    assert "shorter" not in Settings(RowSettings()).as_dict()
    assert Settings(RowSettings(64), shorter=(16,)).as_dict()["shorter"] == (16,)
