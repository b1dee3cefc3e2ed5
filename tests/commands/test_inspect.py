"""What inspect shows is what the training step was given."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from support.pieces import CLS, MASK, SEP
from support.tiny_runs import prepare_rows, tiny_config

from albert_jax.analysis.batches import RowView, RunView, Slot, describe, spell
from albert_jax.checkpoints.run_dir import open_run, read_run
from albert_jax.data.loader import Rows
from albert_jax.data.row_reader import open_rows
from albert_jax.data.sampling import row_of
from albert_jax.data.tokenizers import read_vocabulary
from albert_jax.inspect import main
from albert_jax.train import make_experiment
from albert_jax.train.loop import train


@pytest.fixture
def begun(rows: Path, tmp_path: Path):
    """A run directory as it is before the first step, for settings of the data."""

    def begin(**data: object) -> Path:
        config = tiny_config(rows, data=data)
        manifest = Rows(config.data, "train").manifest
        open_run(tmp_path / "run", config, manifest["fingerprint"], read_vocabulary(rows))
        return tmp_path / "run"

    return begin


def slots_of(view: RowView) -> list[tuple[int, int, bool]]:
    """The row laid out again: (what stood there, what the model is given, to be predicted)."""
    laid = []
    for chunk in view.chunks:
        laid.append((CLS, CLS, False))
        for segment in (chunk.a, chunk.b):
            laid += [tuple(slot) for slot in segment] + [(SEP, SEP, False)] * bool(segment)
    return laid


def assert_same_row(view: RowView, batch: dict[str, np.ndarray], b: int) -> None:
    """Every number of the batch's row is in the view."""
    laid = slots_of(view)
    ids = np.zeros_like(batch["input_ids"][b])
    ids[: len(laid)] = [given for _, given, _ in laid]
    np.testing.assert_array_equal(ids, batch["input_ids"][b])
    real = batch["mlm_weights"][b] > 0
    slots = [i for i, (_, _, predicted) in enumerate(laid) if predicted]
    np.testing.assert_array_equal(slots, batch["mlm_positions"][b][real])
    labels = [piece for piece, _, predicted in laid if predicted]
    np.testing.assert_array_equal(labels, batch["mlm_labels"][b][real])
    assert all(piece == given for piece, given, predicted in laid if not predicted)
    said = [chunk.label for chunk in view.chunks]
    weights, pairs = batch["sentence_weights"][b], batch["sentence_labels"][b]
    np.testing.assert_array_equal([label is not None for label in said], weights[: len(said)])
    np.testing.assert_array_equal([label or 0 for label in said], pairs[: len(said)])
    assert weights[len(said) :].sum() == 0
    types = [kind for c in view.chunks for kind in [0] * (len(c.a) + 2) + [1] * _length(c.b)]
    np.testing.assert_array_equal(types, batch["token_type_ids"][b][: len(types)])
    assert view.used == len(types)


def _length(segment: tuple[Slot, ...]) -> int:
    return len(segment) + 1 if segment else 0


@pytest.mark.slow
def test_it_shows_what_the_steps_of_a_real_run_were_given(rows, tmp_path):
    experiment, fed = (
        make_experiment(tiny_config(rows, train={"num_steps": 3}), tmp_path / "run"),
        [],
    )

    def watched(state, batch, key):
        fed.append({name: np.asarray(array) for name, array in batch.items()})
        return experiment.train_step(state, batch, key)

    train(experiment._replace(train_step=watched))
    run = RunView(tmp_path / "run")
    for step in (1, 2, 3):
        for place in range(8):
            assert_same_row(run.view(step, place), fed[step - 1], place)


@pytest.mark.parametrize("objective", ["nsp", "none"])
def test_it_shows_other_objectives_in_later_epochs(rows, begun, objective):
    workdir = begun(sentence_objective=objective)
    run = RunView(workdir)
    # A long run in place of a long wait: no step is computed.
    run.config = dataclasses.replace(
        run.config, train=dataclasses.replace(run.config.train, num_steps=1000)
    )
    view = run.view(1000, 3)
    loader = Rows(run.config.data, "train")
    assert (view.epoch, view.row) == row_of(0, loader.num_rows, 999 * 8 + 3)
    assert view.epoch > 5
    batch = loader.make_batch(0, [(view.epoch, view.row)])
    assert_same_row(view, batch, 0)
    text = "\n".join(describe(run, view, colour=False))
    assert ("B follows A" in text or "from another document" in text) == (objective == "nsp")


def test_plain_text_says_all_and_colours_say_the_same(rows, begun):
    run = RunView(begun())
    for place in range(8):
        view = run.view(1, place)
        plain = "\n".join(describe(run, view, colour=False))
        coloured = "\n".join(describe(run, view, colour=True))
        predicted = sum(predicted for _, _, predicted in slots_of(view))
        assert plain.count("{") == plain.count("}") == predicted > 0
        assert coloured.count("\x1b[1;") == coloured.count("\x1b[0m") == predicted
        assert "\x1b" not in plain
        without = re.sub(r"(>[^}]*|=)?}", "", plain).replace("{", "")
        assert without == re.sub(r"(>[^\x1b]*)?\x1b\[[0-9;]*m", "", coloured)
        for chunk in view.chunks:
            text = run.tokenizer.decode([slot.piece for slot in chunk.a])
            assert f"A: {text}" in without.replace("▁", "")


def test_each_fate_of_a_piece_has_its_mark(rows, begun):
    tokenizer = RunView(begun()).tokenizer
    spelled = dict(enumerate(tokenizer.pieces(range(60))))
    space = next(i for i, piece in spelled.items() if piece == "▁")
    word = next(i for i, piece in spelled.items() if piece.startswith("▁") and piece != "▁")
    other = next(i for i, piece in spelled.items() if piece.isalpha())
    slots = [
        Slot(word, word, False),
        Slot(word, MASK, True),
        Slot(word, word, True),
        Slot(word, other, True),
        Slot(space, MASK, True),
    ]
    marks = {"masked": "<%s>", "kept": "(%s)", "replaced": "[%s %s]"}
    w = spelled[word][1:]
    assert spell(slots, tokenizer, marks) == f"{w} <{w}> ({w}) [{w} {spelled[other]}] <▁>"


def test_a_document_is_found_where_it_is_fed_next(rows, begun, capsys):
    workdir = begun()
    run, stored = RunView(workdir), open_rows(rows, "train")
    document = int(stored[5]["chunk_documents"][0])

    def documents(step: int) -> set[int]:
        return {d for _, row in run.rows_of_step(step) for d in stored[row]["chunk_documents"]}

    seen = [step for step in range(1, 13) if document in documents(step)]
    step, places = run.next_step(document)
    assert step == seen[0]
    assert [
        p for p in range(8) if document in {c.document for c in run.view(step, p).chunks}
    ] == places
    later, _ = run.next_step(document, seen[0] + 1)
    assert later == seen[1]
    assert main(["--workdir", str(workdir), "--document", str(document)]) == 0
    said = capsys.readouterr().out
    assert f"document {document} next occurs in step {step}\n" in said
    assert f"document {document} ({rows.parent}/texts.jsonl)" in said
    assert main(["--workdir", str(workdir), "--document", "100000"]) == 1
    assert "no training row holds this" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--step", "0"], "--step 0 must be from 1 to train.num_steps=12"),
        (["--step", "13"], "--step 13 must be"),
        (["--row", "8"], "--row 8 must be from 0 to 7"),
        (["--data", "nowhere"], "'nowhere': no such folder"),
    ],
)
def test_what_is_not_there_is_refused(begun, capsys, words, message):
    assert main(["--workdir", str(begun()), *words]) == 1
    assert message in capsys.readouterr().err


def test_a_relative_path_of_data_means_the_same_from_anywhere(
    begun, rows, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(rows.parent)
    run = begun(path=rows.name)
    assert read_run(run).config.data.path == str(rows)
    monkeypatch.chdir(tmp_path)
    assert main(["--workdir", "run", "--row", "0"]) == 0
    assert "row 0" in capsys.readouterr().out


def test_other_rows_than_the_runs_are_refused(begun, tmp_path, capsys):
    other = prepare_rows(tmp_path, documents=60)
    assert main(["--workdir", str(begun()), "--data", str(other)]) == 1
    assert "holds other rows than those of the run" in capsys.readouterr().err
