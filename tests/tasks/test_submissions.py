"""Files of predictions, byte for byte, and what an error leaves."""

import csv
import itertools
import json
import re

import numpy as np
import pytest

from albert_jax.tasks import submissions
from albert_jax.tasks.readers.conll import read_columns
from albert_jax.tasks.registry import SPECS, spec_of
from albert_jax.tasks.submissions import (
    write_choices,
    write_squad,
    write_tags,
    write_text_predictions,
)

ENTAILS = ("entailment", "not_entailment")
MNLI = ("entailment", "neutral", "contradiction")


def files_of(task):
    return spec_of(task).files


@pytest.mark.parametrize(
    ("task", "split", "labels", "name", "lines"),
    [
        ("cola", "test", ("unacceptable", "acceptable"), "CoLA", "1 0"),
        ("sst2", "test", ("negative", "positive"), "SST-2", "1 0"),
        ("mrpc", "test", ("0", "1"), "MRPC", "1 0"),
        ("qqp", "test", ("not_duplicate", "duplicate"), "QQP", "1 0"),
        ("wnli", "test", ("not_entailment", "entailment"), "WNLI", "1 0"),
        ("qnli", "test", ENTAILS, "QNLI", "not_entailment entailment"),
        ("rte", "test", ENTAILS, "RTE", "not_entailment entailment"),
        ("rte", "test", ENTAILS[::-1], "RTE", "entailment not_entailment"),
        ("mnli", "test_matched", MNLI, "MNLI-m", "neutral entailment"),
        ("mnli", "test_mismatched", MNLI, "MNLI-mm", "neutral entailment"),
        ("ax", "test", MNLI, "AX", "neutral entailment"),
    ],
)
def test_glue_files(tmp_path, task, split, labels, name, lines):
    first, second = lines.split()
    path = write_text_predictions(
        files_of(f"glue/{task}"), tmp_path / "new" / "folder", split, ["0", "1"],
        np.array([1, 0]), labels, np.array([[0.1, 0.9], [0.8, 0.2]]),
    )  # fmt: skip
    assert path == tmp_path / "new" / "folder" / f"{name}.tsv"
    assert path.read_bytes() == f"index\tprediction\n0\t{first}\n1\t{second}\n".encode()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_glue_scores_are_clipped(tmp_path):
    scores = np.array([-0.2, 5.7, 2.71828, 0.0004], np.float32)
    path = write_text_predictions(files_of("glue/stsb"), tmp_path, "test", list("0123"), scores)
    assert path.name == "STS-B.tsv"
    assert path.read_text() == "index\tprediction\n0\t0.000\n1\t5.000\n2\t2.718\n3\t0.000\n"


def test_all_of_glue_has_a_file():
    files = [spec.files.by_split.values() for spec in SPECS.values() if spec.files]
    assert sorted(itertools.chain(*files)) == sorted(
        f"{n}.tsv" for n in ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm",
                             "QNLI", "RTE", "WNLI", "AX")
    )  # fmt: skip


def test_other_splits_and_tasks_become_tables(tmp_path):
    chances = np.array([[0.25, 0.75], [1.0, 1e-9]], np.float32)
    arguments = ["a", "b"], np.array([1, 0]), ("bad", "good")
    expected = "id\tprediction\tprobability of bad\tprobability of good\n"
    expected += "a\tgood\t0.25\t0.75\nb\tbad\t1\t1e-09\n"
    for task in ("classification", "glue/sst2"):
        path = write_text_predictions(files_of(task), tmp_path, "validation", *arguments, chances)
        assert path == tmp_path / "validation_predictions.tsv"
        assert path.read_text() == expected
    path = write_text_predictions(None, tmp_path, "test", *arguments)
    assert path.read_text() == "id\tprediction\na\tgood\nb\tbad\n"
    for task in ("regression", "glue/stsb"):
        path = write_text_predictions(
            files_of(task), tmp_path, "dev", ["a", "b"], np.array([-7.5, 1 / 3])
        )
        assert path.read_text() == "id\tprediction\na\t-7.5\nb\t0.333333\n"


def test_awkward_ids_and_names_can_be_read_back(tmp_path):
    ids, labels = ['say "x"', "tab\there", "line\nbreak", "ü–😀"], ("à la\tcarte", '"')
    path = write_text_predictions(None, tmp_path, "test", ids, np.array([0, 1, 1, 0]), labels)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[1:] == [[i, labels[k]] for i, k in zip(ids, (0, 1, 1, 0), strict=True)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["0", "0"]}, "id '0' occurs twice"),
        ({"ids": ["0"]}, r"1 ids for predictions of shape \(2,\)"),
        ({"predictions": np.array([[0], [1]])}, r"2 ids for predictions of shape \(2, 1\)"),
        ({"predictions": np.array([0.0, 1.0])}, "must be integers, not float64"),
        ({"predictions": np.array([0, 2])}, "0 to 2, but there are only 2 class names"),
        ({"predictions": np.array([-1, 1])}, "-1 to 1, but there are only 2 class names"),
        ({"files": files_of("glue/rte")}, "bad, good are not GLUE's class names"),
        ({"files": files_of("glue/cola"), "labels": MNLI}, "GLUE expects 2 classes, not 3"),
        (
            {"files": files_of("glue/stsb"), "labels": (), "predictions": np.array([np.nan, 1])},
            "score is not finite",
        ),
        ({"labels": (), "predictions": np.array([np.inf, 1])}, "score is not finite"),
        ({"probabilities": np.ones((2, 3))}, r"must be \[2,2\], not \(2, 3\)"),
        ({"probabilities": np.full((2, 2), np.nan)}, "probability is not finite"),
    ],
)
def test_wrong_predictions_are_refused(tmp_path, changes, message):
    arguments = {
        "files": None, "directory": tmp_path / "new", "split": "test",
        "ids": ["0", "1"], "predictions": np.array([0, 1]), "labels": ("bad", "good"),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        write_text_predictions(**arguments | changes)
    assert not (tmp_path / "new").exists()


def test_squad_files(tmp_path):
    predictions = {"q1": "a “b” \ud800", "q2": ""}
    nbest = {"q1": [{"text": "x", "probability": np.float32(0.5), "start": np.int64(3)}], "q2": []}
    odds = {"q2": np.float32(1.5), "q1": -2.0}
    paths = write_squad(tmp_path, predictions, nbest, odds)
    names = ["predictions.json", "nbest_predictions.json", "null_odds.json"]
    assert [p.name for p in paths] == names
    read = [json.loads(p.read_bytes()) for p in paths]
    assert read == [
        predictions,
        {"q1": [{"text": "x", "probability": 0.5, "start": 3}], "q2": []},
        {"q1": -2.0, "q2": 1.5},
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert write_squad(tmp_path / "v1", predictions) == [tmp_path / "v1" / "predictions.json"]


def test_squad_ids_must_agree(tmp_path):
    with pytest.raises(ValueError, match="2 ids are in only one of predictions and null_odds"):
        write_squad(tmp_path, {"a": "x", "b": "y"}, None, {"a": 0.0, "c": 1.0})
    with pytest.raises(
        ValueError, match="only one of predictions and nbest_predictions; the first is 'b'"
    ):
        write_squad(tmp_path, {"a": "x", "b": "y"}, {"a": []})
    assert not list(tmp_path.iterdir())


def test_choices_are_letters(tmp_path):
    path = write_choices(tmp_path, "test", ["high1-0", "high1-1"], np.array([3, 0]))
    assert path == tmp_path / "test_predictions.json"
    assert json.loads(path.read_text()) == {"high1-0": "D", "high1-1": "A"}
    with pytest.raises(ValueError, match="twice"):
        write_choices(tmp_path, "test", ["x", "x"], np.array([0, 0]))
    with pytest.raises(ValueError, match="only 26"):
        write_choices(tmp_path, "test", ["x"], np.array([26]))


def test_tags_are_columns(tmp_path):
    words, tags = [["EU", "rejects"], [], ["Ü"]], [["B-ORG", "O"], [], ["O"]]
    path = write_tags(tmp_path, "test", words, tags)
    assert path == tmp_path / "test_predictions.txt"
    assert path.read_bytes() == "EU B-ORG\nrejects O\n\n\nÜ O\n\n".encode()
    labels = [["B-LOC", "O"], [], ["B-PER"]]
    write_tags(tmp_path, "test", words, tags, labels)
    assert path.read_bytes() == "EU B-LOC B-ORG\nrejects O O\n\n\nÜ B-PER O\n\n".encode()


@pytest.mark.parametrize("word", ["a\u00a0b", "a\u3000b", "\u200b"])
def test_words_are_written_as_they_were_read(tmp_path, word):
    path = write_tags(tmp_path, "test", [[word]], [["O"]])
    (sentence,) = read_columns(str(path), untagged=True)
    assert sentence.words == (word,)


@pytest.mark.parametrize(
    ("words", "tags", "labels", "message"),
    [
        ([["a"]], [["O"], ["O"]], None, "have [1, 2] sentences"),
        ([["a"]], [["O"]], [], "have [1, 0, 1] sentences"),
        ([["a"], ["a"]], [["O"], []], None, "sentence 1: lengths differ: [1, 0]"),
        ([["a"]], [["O"]], [["O", "O"]], "sentence 0: lengths differ: [1, 2, 1]"),
        ([["a"], ["New York"]], [["O"], ["O"]], None, "sentence 1: 'New York' is empty or"),
        ([["a\tb"]], [["O"]], None, "'a\\tb' is empty or"),
        ([["a\nb"]], [["O"]], None, "'a\\nb' is empty or"),
        ([[""]], [["O"]], None, "'' is empty or"),
    ],
)
def test_columns_must_not_shift(tmp_path, words, tags, labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        write_tags(tmp_path, "test", words, tags, labels)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["content", "writing"])
def test_an_error_leaves_what_was_there(tmp_path, monkeypatch, failing):
    old = write_squad(tmp_path, {"a": "old"}, {"a": []}, {"a": 0.0})
    before = {p.name: p.read_bytes() for p in old}
    odds = {"a": 1.0}
    if failing == "content":
        odds, error = {"a": float("nan")}, ValueError
    else:
        error = OSError
        write_bytes = submissions.Path.write_bytes

        def write_half(path, data):
            if "null_odds" not in path.name:
                return write_bytes(path, data)
            write_bytes(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(submissions.Path, "write_bytes", write_half)
    with pytest.raises(error):
        write_squad(tmp_path, {"a": "new"}, {"a": []}, odds)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
