"""The command `predict`, end to end: files, metrics, splits, classes in another order, errors."""

import csv
import dataclasses
import functools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.models import tiny_config, tiny_model
from support.params import random_params
from support.texts import VOCAB_SIZE, WORDS, make_sentence

import albert_jax
from albert_jax.checkpoints.weights import Weights
from albert_jax.convert import write_run
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.model.heads import KINDS
from albert_jax.predict.__main__ import main
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.tasks.examples import QuestionExample
from albert_jax.tasks.metrics import entity_metrics
from albert_jax.tasks.registry import read_task
from albert_jax.tasks.squad_metrics import squad_metrics

CONFIG = tiny_model(vocab_size=VOCAB_SIZE, num_hidden_layers=1)
TEXTS = [make_sentence(random.Random(i), 1, 8) for i in range(40)]
# In another order than that in which the files' readers sort them.
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


@pytest.fixture(scope="module")
def make_run(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes run directories of random weights, once for each task and labels."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = load_tokenizer(vocabulary)

    @functools.cache
    def make(kind: str, name: str, labels: tuple[str, ...] = (), has_text: bool = True) -> Path:
        params = random_params(CONFIG, KINDS[kind], len(labels) or 1)
        params = jax.tree_util.tree_map_with_path(
            lambda path, p: 1 + p * 0.1 if path[-1].key == "scale" else p * 0.5, params
        )
        if kind == "classification" and labels:  # no class is to be the likeliest of all texts
            model = FinetunedModel(Weights(CONFIG, params, kind, labels=labels), params, tokenizer)
            found = [list(one.probabilities.values()) for one in model.classify(TEXTS)]
            params["classifier"]["bias"] -= np.log(found).mean(axis=0)
        task = {"name": name, "max_length": 64, "stride": 16, "max_question": 16}
        task = {} if name == "pretrain" else task
        config = tiny_config(model=dataclasses.asdict(CONFIG), task=task)
        run = folder / f"{name.replace('/', '_')}{len(list(folder.iterdir()))}"
        proto = tokenizer.vocabulary if has_text else None
        write_run(Weights(CONFIG, params, kind, proto, labels=labels), run, config)
        return run

    return make


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def predict(data: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs the command on the files of `data`; what it wrote, by name and parsed, and said."""

    def run(checkpoint: Path, *more: str) -> tuple[dict[str, Any], list[str]]:
        output = data.with_name("output")
        words = ["--checkpoint", checkpoint, "--input", data, "--output", output]
        assert main([*map(str, words), *more]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        files = sorted(output.iterdir())
        return {p.name: PARSERS[p.suffix](p.read_text()) for p in files}, said.out.splitlines()

    return run


PARSERS: dict[str, Callable[[str], Any]] = {
    ".tsv": lambda text: list(csv.DictReader(text.splitlines(), delimiter="\t")),
    ".json": json.loads,
    ".txt": str,
}


def write_lines(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


@pytest.mark.parametrize("has_labels", [True, False])
def test_classes_in_another_order(has_labels, make_run, predict, data):
    run = make_run("classification", "classification", ("good", "bad", "fair"))
    truth = [("good", "bad")[i % 3 > 0] for i in range(40)]  # no "fair", sorted the other way
    rows = [{"text": t, "label": y} for t, y in zip(TEXTS, truth, strict=True)]
    rows = rows if has_labels else [{"text": t} for t in TEXTS]
    write_lines(data / "test.jsonl", *map(json.dumps, rows))
    files, said = predict(run)
    table = files["test_predictions.tsv"]
    found = albert_jax.load(run).classify(TEXTS)
    assert [row["id"] for row in table] == [str(i) for i in range(40)]
    assert [row["prediction"] for row in table] == [one.label for one in found]
    for row, one in zip(table, found, strict=True):
        named = {f"probability of {k}": p for k, p in one.probabilities.items()}
        assert {k: float(row[k]) for k in named} == pytest.approx(named, abs=1e-5)
    assert said[0] == f"{data.with_name('output')}: test, 40 examples"
    if has_labels:
        right = sum(one.label == y for one, y in zip(found, truth, strict=True))
        assert 5 < right < 35
        assert json.loads(said[1])["accuracy"] == pytest.approx(right / 40)
    assert len(said) == 1 + has_labels


@pytest.mark.slow
def test_glue_by_split(make_run, predict, data):
    run = make_run("classification", "glue/sst2", ("negative", "positive"))
    labelled = [f"{text}\t{i % 2}" for i, text in enumerate(TEXTS)]
    for name in ("train", "dev"):
        write_lines(data / f"{name}.tsv", "sentence\tlabel", *labelled)
    test = [f"{i + 7}\t{text}" for i, text in enumerate(TEXTS)]
    write_lines(data / "test.tsv", "index\tsentence", *test)
    labels = [one.label for one in albert_jax.load(run).classify(TEXTS)]
    files, said = predict(run)
    assert list(files) == ["SST-2.tsv"]
    assert files["SST-2.tsv"] == [
        {"index": str(i + 7), "prediction": str(int(label == "positive"))}
        for i, label in enumerate(labels)
    ]
    assert len(said) == 1
    files, said = predict(run, "--split", "validation")
    assert list(files) == ["SST-2.tsv", "validation_predictions.tsv"]
    right = sum((label == "positive") == i % 2 for i, label in enumerate(labels))
    assert json.loads(said[1]) == {"accuracy": pytest.approx(right / 40)}
    (data / "test.tsv").unlink()
    assert predict(run)[1] == said
    (data / "dev.tsv").unlink()
    assert "train_predictions.tsv" in predict(run)[0]


def test_both_test_splits_of_mnli(make_run, predict, data):
    run = make_run("classification", "glue/mnli", ("entailment", "neutral", "contradiction"))
    rows = [f"{i}\t{TEXTS[i]}\t{TEXTS[-i - 1]}" for i in range(40)]
    for name, count in (("matched", 40), ("mismatched", 9)):
        header = "index\tsentence1\tsentence2"
        write_lines(data / f"test_{name}.tsv", header, *rows[:count])
    files, said = predict(run)
    labels = [one.label for one in albert_jax.load(run).classify(TEXTS, TEXTS[::-1])]
    table = [{"index": str(i), "prediction": label} for i, label in enumerate(labels)]
    assert files == {"MNLI-m.tsv": table, "MNLI-mm.tsv": table[:9]}
    assert [line.split()[-2] for line in said] == ["40", "9"]


def test_scores(make_run, predict, data):
    run = make_run("classification", "regression")
    rows = [f'"{text}",{i / 10}' for i, text in enumerate(TEXTS)]
    write_lines(data / "dev.csv", "text,score", *rows)
    files, said = predict(run)
    table = files["validation_predictions.tsv"]
    assert list(table[0]) == ["id", "prediction", "text", "score"]
    scores = [float(one.label) for one in albert_jax.load(run).classify(TEXTS)]
    assert [float(row["prediction"]) for row in table] == pytest.approx(scores, abs=1e-5)
    errors = [(score - i / 10) ** 2 for i, score in enumerate(scores)]
    assert json.loads(said[1])["mean_squared_error"] == pytest.approx(sum(errors) / 40, rel=1e-4)


@pytest.mark.parametrize("has_tags", [True, False])
def test_tags_in_another_order(has_tags, make_run, predict, data):
    run = make_run("token_classification", "conll2003", TAGS)
    sentences = [text.split() for text in TEXTS]
    gold = [["B-PER", "I-PER", "O", "B-LOC", *["O"] * 9][: len(words)] for words in sentences]
    lines = []
    for words, tags in zip(sentences, gold, strict=True):
        lines += [f"{w} {t}" if has_tags else w for w, t in zip(words, tags, strict=True)] + [""]
    write_lines(data / "test.txt", *lines)
    if has_tags:  # a type that the model lacks, but that no test sentence has
        write_lines(data / "train.txt", "a B-ORG", "b B-PER", "c B-LOC")
    files, said = predict(run)
    model = albert_jax.load(run)
    found = [[one.tag for one in model.tag(words)] for words in sentences]
    assert len({tag for tags in found for tag in tags}) > 2
    expected = []
    for columns in zip(sentences, gold, found, strict=True):
        parts = columns if has_tags else columns[::2]
        expected += [" ".join(fields) for fields in zip(*parts, strict=True)] + [""]
    assert files == {"test_predictions.txt": "".join(f"{line}\n" for line in expected)}
    assert [json.loads(line) for line in said[1:]] == [entity_metrics(found, gold)] * has_tags


def test_choices(make_run, predict, data):
    run = make_run("multiple_choice", "race/middle")
    options = [WORDS[i : i + 4] for i in range(8)]
    passage = {"article": TEXTS[0], "questions": TEXTS[1:9], "options": options}
    answered = passage | {"id": "middle1.txt", "answers": list("ABCDABCD")}
    write_lines(data / "test.jsonl", json.dumps(answered))
    files, said = predict(run)
    model = albert_jax.load(run)
    found = [model.choose(TEXTS[0], TEXTS[i + 1], WORDS[i : i + 4]).index for i in range(8)]
    letters = {f"middle1.txt-{i}": "ABCD"[k] for i, k in enumerate(found)}
    assert len(set(found)) > 1
    assert files == {"test_predictions.json": letters}
    right = sum(k == i % 4 for i, k in enumerate(found))
    assert json.loads(said[1]) == {"accuracy": right / 8}
    # Metrics of some of the questions would be taken for those of all.
    unanswered = passage | {"id": "middle2.txt"}
    write_lines(data / "test.jsonl", json.dumps(answered), json.dumps(unanswered))
    assert len(predict(run)[1]) == 1


def write_squad(folder: Path, version: str) -> list[QuestionExample]:
    """Questions of which in 2.0 every third has no answer."""
    paragraphs = []
    for i, context in enumerate(TEXTS):
        answer = {"text": context.split()[0], "answer_start": 0}
        answers = [answer] if version == "1.1" or i % 3 else []
        question = {"id": f"q{i}", "question": f"{WORDS[i]}?", "answers": answers}
        question["is_impossible"] = not answers
        paragraphs.append({"context": context, "qas": [question]})
    whole = {"version": version, "data": [{"title": "one", "paragraphs": paragraphs}]}
    (folder / f"dev-v{version}.json").write_text(json.dumps(whole))
    return read_task(f"squad/v{version}", folder).splits["validation"]


def test_answers_where_there_is_always_one(make_run, predict, data):
    run = make_run("question_answering", "squad/v1.1")
    examples = write_squad(data, "1.1")
    files, said = predict(run)
    model = albert_jax.load(run)
    found = {e.id: model.answer(e.question, e.context)[0].text for e in examples}
    assert files.pop("predictions.json") == found
    nbest = {i: best[0]["text"] for i, best in files.pop("nbest_predictions.json").items()}
    assert (nbest, files) == (found, {})
    assert json.loads(said[1]) == squad_metrics(found, examples)


def test_answers_by_the_threshold_of_the_run(make_run, predict, data, monkeypatch):
    run = make_run("question_answering", "squad/v2.0")
    examples = write_squad(data, "2.0")
    odds = predict(run)[0]["null_odds.json"]
    model: FinetunedModel = albert_jax.load(run)
    threshold = float(np.mean(sorted(odds.values())[10:12]))
    model.validation = {"null_threshold": threshold}
    monkeypatch.setattr("albert_jax.predict.__main__.load", lambda _, average: model)
    files, said = predict(run)
    assert list(files) == ["nbest_predictions.json", "null_odds.json", "predictions.json"]
    texts = files["predictions.json"]
    assert [bool(texts[e.id]) for e in examples] == [odds[e.id] <= threshold for e in examples]
    assert texts == {e.id: model.answer(e.question, e.context)[0].text for e in examples}
    # What is printed is what the official script says of the file.
    official, printed = squad_metrics(texts, examples), json.loads(said[1])
    assert {name: printed[name] for name in official} == official
    assert 0 < official["f1"] < 1


ROWS = "1001,Great music.,en\n1007,Awful day.,de\n"


@pytest.mark.parametrize("name", ["reviews.csv", "train_like.csv", "dev.csv"])
def test_a_file_of_any_name_keeps_its_ids_and_columns(name, make_run, predict, data):
    (data / name).write_text(f"ID,Text,lang\n{ROWS}")
    files, said = predict(make_run(*CLASSIFIER), "--input", str(data / name))
    assert len(said) == 1
    ((file, table),) = files.items()
    stem = name.removesuffix(".csv").replace("dev", "validation")
    assert file == f"{stem}_predictions.tsv"
    assert [row["id"] for row in table] == ["1001", "1007"]
    assert [row["Text"] for row in table] == ["Great music.", "Awful day."]
    assert [row["lang"] for row in table] == ["en", "de"]
    assert list(table[0])[:2] == ["id", "prediction"]


@pytest.mark.parametrize(
    ("lines", "accuracy"),
    [
        (["a\tgood", "b\tbad"], True),
        (["a\t0", "b\t1"], True),  # numbers of the model's classes
        (["a\t-1", "b\t-1"], False),
        (["a\tgood", "b\t"], False),
    ],
)
def test_labels_are_used_if_all_rows_have_them(lines, accuracy, make_run, predict, data):
    run = make_run(*CLASSIFIER)
    write_lines(data / "train.tsv", "text\tlabel", *lines)
    files, said = predict(run, "--input", str(data / "train.tsv"))
    assert "train_predictions.tsv" in files
    assert ("accuracy" in said[-1]) == accuracy
    assert ("1 of 2 rows have no label" in said[0]) == ("b\t" in lines)
    numbers = "read as numbers of the model's classes: 0 good, 1 bad, 2 fair"
    assert (numbers in said[0]) == ("a\t0" in lines)
    if accuracy:
        right = [one.label == label for one, label in zip(
            albert_jax.load(run).classify(["a", "b"]), ("good", "bad"), strict=True
        )]  # fmt: skip
        assert json.loads(said[-1])["accuracy"] == pytest.approx(sum(right) / 2)


def test_a_table_for_a_glue_task(make_run, predict, data):
    run = make_run("classification", "glue/sst2", ("negative", "positive"))
    write_lines(data / "mine.jsonl", *(json.dumps({"text": t, "label": 1}) for t in TEXTS))
    files, said = predict(run, "--input", str(data / "mine.jsonl"))
    labels = [row["prediction"] for row in files["mine_predictions.tsv"]]
    assert json.loads(said[-1])["accuracy"] == pytest.approx(labels.count("positive") / 40)


def test_columns_named_like_the_output_are_kept(make_run, predict, data):
    write_lines(data / "a.csv", "text,prediction", "x,mine")
    files, _ = predict(make_run(*CLASSIFIER), "--input", str(data / "a.csv"))
    assert files["a_predictions.tsv"][0]["input prediction"] == "mine"


def article(number: int, **more: Any) -> dict[str, Any]:
    question = {"id": number, "question": "words?"} | more
    return {"title": f"T{number}", "paragraphs": [{"context": TEXTS[0], "qas": [question]}]}


@pytest.mark.parametrize("name", ["labelled.json", "train.json"])
@pytest.mark.parametrize("version", ["v1.1", "v2.0"])
@pytest.mark.parametrize("has_answers", [True, False])
def test_all_questions_of_a_file_are_answered(name, version, has_answers, make_run, predict, data):
    answers = {"answers": [{"text": TEXTS[0].split()[0], "answer_start": 0}]}
    articles = [article(n, **answers if has_answers else {}) for n in range(10)]
    (data / name).write_text(json.dumps({"data": articles}))
    run = make_run("question_answering", f"squad/{version}")
    for source in (data / name, data):
        files, said = predict(run, "--input", str(source))
        assert list(files["predictions.json"]) == [str(n) for n in range(10)]
        assert ("f1" in said[-1]) == has_answers


def test_words_in_a_file_of_any_name_are_tagged(make_run, predict, data):
    write_lines(data / "my_words", "Ann", "ran", "", "Bo")
    files, _ = predict(make_run(*TAGGER), "--input", str(data / "my_words"))
    lines = files["my_words_predictions.txt"].splitlines()
    assert [line.split()[0] for line in lines if line] == ["Ann", "ran", "Bo"]


CLASSIFIER = ("classification", "classification", ("good", "bad", "fair"))
TAGGER = ("token_classification", "conll2003", TAGS)
# The run, the file in the folder of data, its lines, the message.
ERRORS: list[tuple[Any, str, list[str], str]] = [
    (CLASSIFIER, "dev.tsv", ["text\tlabel", "a\tugly", "b\tgood"], "no class 'ugly', only good"),
    (TAGGER, "test.txt", ["a B-ORG", "b O"], "has no class 'B-ORG'"),
    (("pretraining", "pretrain"), "test.tsv", ["text", "a"], "pretraining: it was not fine-tuned"),
    ((*CLASSIFIER, False), "test.tsv", ["text", "a"], "came without a vocabulary"),
    (None, "test.tsv", ["text", "a"], "there is no model at"),
    (CLASSIFIER, "other", [], "holds none of train.*"),
    (CLASSIFIER, "", [], "data: no such file or folder"),
    (CLASSIFIER, "test.tsv", ["text\tlabel", "a"], "test.tsv:2: 1 columns"),
    (CLASSIFIER, "train.tsv", ["text\tlabel", "a\tgood", "b\tbad"], "'test' must be one of train"),
]  # fmt: skip


@pytest.mark.parametrize(("run", "name", "lines", "message"), ERRORS, ids=[e[3] for e in ERRORS])
def test_errors_are_one_line_and_nothing_is_written(
    run, name, lines, message, make_run, data, tmp_path, capsys
):
    write_lines(data / name, *lines) if name else data.rmdir()
    checkpoint, output = make_run(*run) if run else tmp_path / "nothing", tmp_path / "output"
    words = ["--checkpoint", checkpoint, "--input", data, "--output", output]
    words += ["--split", "test"] if name == "train.tsv" else []
    assert main([str(word) for word in words]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert message in err
    assert not output.exists()


@pytest.mark.slow
def test_as_a_command(make_run, data, tmp_path, repo_root):
    file = tmp_path / "output" / "test_predictions.tsv"
    write_lines(data / "test.tsv", "text", *TEXTS)
    words = ["-m", "albert_jax.predict", "--checkpoint", make_run(*CLASSIFIER), "--input", data]
    for output in (file.parent, file):  # a file is no directory to write into
        command = [sys.executable, *map(str, words), "--output", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=repo_root)
        assert done.returncode == (output == file)
        assert done.stderr.count("\n") == done.stderr.count("error: ") == done.returncode
        assert len(file.read_text().splitlines()) == 41
