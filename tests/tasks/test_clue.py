"""CLUE's files, CMRC's metric and XNLI."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albert_jax.config.schema import TaskConfig
from albert_jax.tasks.cmrc_metrics import cmrc_metrics
from albert_jax.tasks.examples import Answer, QuestionExample
from albert_jax.tasks.question_answering import (
    QuestionAnswering,
    QuestionAnsweringByCharacters,
)
from albert_jax.tasks.readers.clue import CLUE_TASKS
from albert_jax.tasks.registry import SPECS, make_task, read_task
from albert_jax.tasks.squad_metrics import squad_metrics

ROWS: dict[str, list[dict[str, Any]]] = {
    "tnews": [{"label": "102", "label_desc": "news_entertainment", "sentence": "江疏影甜甜圈"}],
    "iflytek": [{"label": "11", "label_des": "薅羊毛", "sentence": "应用"}],
    "afqmc": [{"sentence1": "双十一花呗", "sentence2": "里程", "label": "1"}],
    "cmnli": [
        {"sentence1": "新的权利", "sentence2": "很好", "label": "neutral"},
        {"sentence1": "新的", "sentence2": "好", "label": "-"},
    ],
}


def write(folder: Path, rows: list[dict[str, Any]], *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    for file in files or ("train.json", "dev.json", "test.json"):
        (folder / file).write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_official_files_are_read(name, tmp_path):
    data = read_task(f"clue/{name}", write(tmp_path, ROWS[name]))
    assert list(data.splits) == ["train", "validation", "test"]
    task, row = CLUE_TASKS[name], ROWS[name][0]
    assert data.labels == task.labels
    (example,) = data.splits["train"]
    assert (example.text, example.pair) == (row[task.text], task.pair and row[task.pair])
    assert data.labels[example.label] == row["label"]
    left_out = sum("without an agreed label" in note for note in data.notes)
    assert left_out == (3 if name == "cmnli" else 0)


def test_test_files_have_ids_and_no_labels(tmp_path):
    rows = [{"id": 7, "sentence1": "一", "sentence2": "二"}]
    data = read_task("clue/afqmc", write(tmp_path, rows, "test.json"), to_predict=True)
    assert [(e.id, e.label) for e in data.splits["test"]] == [("7", None)]


WSC: dict[str, Any] = {
    "text": "这时候放在床上的手机响了，我看着它。",
    "label": "false",
    "idx": 3,
    "target": {"span1_index": 5, "span1_text": "床", "span2_index": 16, "span2_text": "它"},
}


def test_the_words_that_cluewsc_asks_about_are_marked(tmp_path):
    (example,) = read_task("clue/cluewsc", write(tmp_path, [WSC])).splits["train"]
    assert example.text == "这时候放在_床_上的手机响了，我看着[它]。"
    assert (example.id, example.label) == ("3", 0)


NER: dict[str, Any] = {
    "text": "浙商银行的叶老桂",
    "label": {"company": {"浙商银行": [[0, 3]]}, "name": {"叶老桂": [[5, 7]]}},
}


def test_cluener_tags_characters(tmp_path):
    data = read_task("clue/cluener", write(tmp_path, [NER]))
    (example,) = data.splits["train"]
    assert example.words == tuple(NER["text"])
    assert [data.labels[tag] for tag in example.tags] == [
        "B-company", *["I-company"] * 3, "O", "B-name", "I-name", "I-name",
    ]  # fmt: skip
    untagged = read_task("clue/cluener", write(tmp_path, [NER], "test.json"), to_predict=True)
    assert untagged.splits["test"][0].tags is None


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("tnews", {"label": "105", "sentence": "一"}, "label '105' is not among"),
        ("tnews", {"label": "100", "text1": "一"}, r"train\.json:1: 'sentence' must be a string"),
        ("cluewsc", WSC | {"target": {}}, "'target' must give span1_text"),
        (
            "cluewsc",
            WSC | {"target": WSC["target"] | {"span1_index": 6}},
            "'床' is not at 6 of the text",
        ),
        ("cluener", NER | {"label": {"name": {"叶": [[8, 8]]}}}, "at 8 to 8 is outside the text"),
        ("cluener", NER | {"label": {"name": [1]}}, "'label' must be type -> entity"),
        (
            "cluener",
            NER | {"label": {"name": {"浙": [[0, 1]]}, "company": {"商": [[1, 1]]}}},
            "the company at 1 overlaps another",
        ),
    ],
)
def test_malformed_rows_are_refused(name, row, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_task(f"clue/{name}", write(tmp_path, [row]))


def test_cmrc_is_read_with_either_name_and_scored_by_characters(tmp_path):
    answers = [{"text": "1984年", "answer_start": 3}]
    question = {"id": "TRAIN_186_QUERY_0", "question": "何时？", "answers": answers}
    paragraph = {"id": "TRAIN_186", "context": "他生于1984年。", "qas": [question]}
    value = {"version": "v1.0", "data": [{"title": "范廷颂", "paragraphs": [paragraph]}]}
    for file in ("train.json", "cmrc2018_dev.json"):
        (tmp_path / file).write_text(json.dumps(value), "utf-8")
    data = read_task("clue/cmrc2018", tmp_path)
    assert list(data.splits) == ["train", "validation"]
    assert data.splits["train"][0].answers == (Answer("1984年", 3),)
    task = make_task(TaskConfig(name="clue/cmrc2018"), data.labels)
    assert isinstance(task, QuestionAnsweringByCharacters)
    assert QuestionAnsweringByCharacters.measure is cmrc_metrics
    assert SPECS["squad/v1.1"].family is QuestionAnswering
    assert QuestionAnswering.measure is squad_metrics


def scores(ours: str, *golds: str) -> tuple[float, float]:
    answers = tuple(Answer(gold, 0) for gold in golds)
    found = cmrc_metrics({"q": ours}, [QuestionExample("q", "", "", "", answers)])
    return found["exact"], found["f1"]


@pytest.mark.parametrize(
    ("ours", "golds", "exact", "f1"),
    [
        ("北京大学", ["北京大学"], 1, 1),
        ("北京大学。", ["「北京大学」"], 1, 1),  # punctuation does not count
        ("北京", ["北京大学"], 0, 2 * 1 * 0.5 / 1.5),
        ("大学北京", ["北京大学"], 0, 0.5),  # runs count, not bags
        ("上海", ["北京"], 0, 0),
        ("", ["北京"], 0, 0),
        ("1984年", ["1984"], 0, 2 * 0.5 * 1 / 1.5),  # a number is one unit
        ("the OpenAI 公司", ["OpenAI公司", "公司"], 0, 2 * (3 / 4) / (1 + 3 / 4)),
    ],
)
def test_cmrc_metrics(ours, golds, exact, f1):
    assert scores(ours, *golds) == pytest.approx((exact, f1))


def test_cmrc_f1_is_that_of_the_longest_common_run():
    draw = np.random.default_rng(0)
    for _ in range(200):
        a, b = ("".join(draw.choice(list("天地人"), size=draw.integers(1, 7))) for _ in range(2))
        runs = (a[i:j] for i, j in itertools.combinations(range(len(a) + 1), 2))
        longest = max((len(run) for run in runs if run in b), default=0)
        expected = 2 * longest / (len(a) + len(b)) if longest else 0.0
        assert scores(a, b)[1] == pytest.approx(expected)


def test_cmrc_needs_a_prediction_for_each_question():
    with pytest.raises(ValueError, match="no prediction for 'q'"):
        cmrc_metrics({}, [QuestionExample("q", "", "", "", ())])
    with pytest.raises(ValueError, match="no examples"):
        cmrc_metrics({}, [])


def test_xnli_is_read_by_language(tmp_path):
    (tmp_path / "xnli.dev.tsv").write_text(
        "language\tgold_label\tsentence1\tsentence2\nde\tneutral\tEins\tZwei\n"
        "zh\tcontradiction\t一\t二\n",
        "utf-8",
    )
    (tmp_path / "multinli.train.zh.tsv").write_text(
        "premise\thypo\tlabel\n三\t四\tcontradictory\n", "utf-8"
    )
    chinese = read_task("xnli/zh", tmp_path)
    assert [(e.text, e.pair, e.label) for e in chinese.splits["train"]] == [("三", "四", 2)]
    assert [(e.text, e.label) for e in chinese.splits["validation"]] == [("一", 2)]
    german = read_task("xnli/de", tmp_path)
    assert [(e.text, e.label) for e in german.splits["validation"]] == [("Eins", 1)]
    with pytest.raises(ValueError, match="no row of the language fr"):
        read_task("xnli/fr", tmp_path)
