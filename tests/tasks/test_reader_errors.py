"""Every way a file of fine-tuning data can be wrong: named with its place, reason and way out."""

import json
import re

import pytest

from albert_jax.tasks.registry import read_task

RTE = "index|sentence1|sentence2|label\n0|A|B|entailment\n"
STSB = "sentence1|sentence2|score\nA|B|5.0\n"
QA = {"id": "q", "question": "?", "answers": [{"text": "two", "answer_start": 4}]}


def squad(*questions, context="One two."):
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": list(questions)}]}]})


def race(**changes):
    whole = {
        "id": "high1",
        "article": "Text.",
        "questions": ["Q?"],
        "options": [["a", "b", "c", "d"]],
        "answers": ["A"],
    } | changes
    return json.dumps({key: value for key, value in whole.items() if value is not None})


GLUE_CASES = [
    ("cola", "train.tsv", "a|1||Good.\na|2||Bad.\n", "2: label '2' must be one of 0, 1; correct"),
    ("cola", "train.tsv", "a|1||Good.\na|1|Bad.\n", "2: 3 columns where 4 are expected; restore"),
    ("cola", "dev.tsv", "a|1||Good.\na|1|| \n", "2: empty text; fill it in or drop the row"),
    ("cola", "dev.tsv", "a|1||Good.\n\na|1||So.\n", "2: 1 columns where 4 are expected"),
    (
        "cola",
        "train.tsv",
        b"a|1||Good.\na|1||B\xff\n",
        "2: invalid UTF-8; convert the file, for example with iconv",
    ),
    ("cola", "train.tsv", b"\xef\xbb\xbfa|1||Good.\n\xff\n", "2: invalid UTF-8"),
    ("cola", "train.tsv", " \n\n", " the file is empty; fetch it again"),
    ("rte", "train.tsv", RTE.replace("label", "lable"), "1: no column 'label', or several (has: "),
    ("rte", "test.tsv", RTE.replace("sentence2", "s"), "1: no column 'sentence2'"),
    (
        "rte",
        "train.tsv",
        RTE.replace("sentence2", "sentence1"),
        "1: no column 'sentence1', or sev",
    ),
    (
        "rte",
        "train.tsv",
        RTE + "1|A|B|neutral\n",
        "3: label 'neutral' must be one of entailment, ",
    ),
    ("rte", "train.tsv", RTE.partition("\n")[0], " no row below the header; fetch the file again"),
    ("rte", "test.tsv", "index|sentence1|sentence2\n0|A|B\n0|A|B\n", "3: index 0 is repeated"),
    (
        "rte",
        "test.tsv",
        "index|sentence1|sentence2\nx|A|B\n",
        "2: index 'x' is not a number; restore",
    ),
    ("stsb", "dev.tsv", STSB + "A|B|5.1\n", "3: score 5.1 is not between 0 and 5; correct it"),
    ("stsb", "dev.tsv", STSB + "A|B|nan\n", "3: score 'nan' is not a finite number; correct"),
    ("stsb", "dev.tsv", STSB + "A|B|\n", "3: score '' is not a finite number"),
    ("mnli", "dev_matched.tsv", "sentence1|sentence2|gold_label\nA|B|-\n", "2: label '-' must be"),
    ("qqp", "test.tsv", "id|question1|question2\n0|A\n", "2: 2 columns where 3 are expected"),
]


@pytest.mark.parametrize(("task", "name", "text", "message"), GLUE_CASES)
def test_bad_glue_files(tmp_path, task, name, text, message):
    file = tmp_path / name
    text = text.encode() if isinstance(text, str) else text
    file.write_bytes(text.replace(b"|", b"\t"))
    with pytest.raises(ValueError, match=re.escape(f"{file}:{message}")):
        read_task(f"glue/{task}", tmp_path)


@pytest.mark.parametrize("content", ["1\t2\n", "10\t11\n12\t13\n"])
def test_bad_list_of_mrpc_pairs(tmp_path, content):
    text = "Quality|#1 ID|#2 ID|#1 String|#2 String\n1|10|11|A|B\n1|12|13|A|B\n"
    (tmp_path / "msr_paraphrase_train.txt").write_text(text.replace("|", "\t"))
    (tmp_path / "dev_ids.tsv").write_text(content)
    with pytest.raises(ValueError, match=r"dev_ids\.tsv:1: does not split .* in two; fetch"):
        read_task("glue/mrpc", tmp_path)


PLACE = " data[0].paragraphs[0].qas[0] (question q)"
SQUAD_CASES = [
    ("v2.0", '{"data": [', "1: not JSON ("),
    ("v2.0", '{\n"data": 1,}', "2: not JSON ("),
    ("v2.0", "[" * 100_000, "1: not JSON (nested too deeply)"),
    ("v2.0", "1" * 5000, "1: not JSON ("),
    ("v2.0", "[]", " 'data' must be a list; is this SQuAD's layout?"),
    ("v2.0", '{"data": []}', " data: contains no question; fetch the file again"),
    ("v2.0", '{"data": [{"title": "T"}]}', " data[0]: 'paragraphs' must be a list"),
    ("v2.0", squad(QA, context=" "), " data[0].paragraphs[0]: the context is empty; drop"),
    ("v2.0", squad(QA | {"id": 3.5}), " data[0].paragraphs[0].qas[0]: 'id' must be a string"),
    ("v2.0", squad(QA | {"question": None}), f"{PLACE}: 'question' must be a string"),
    ("v2.0", squad(QA, QA), f"{PLACE.replace('qas[0]', 'qas[1]')}: the id is repeated from "),
    ("v2.0", squad(QA | {"answers": []}), f"{PLACE}: no answer, but is_impossible is"),
    ("v2.0", squad({"id": "q", "question": "?"}), f"{PLACE}: 'answers' must be a list"),
    ("v2.0", squad(QA | {"is_impossible": 0}), f"{PLACE}: 'is_impossible' must be true or false"),
    ("v2.0", squad(QA | {"answers": ["two"]}), f"{PLACE}.answers[0]: 'text' must be a string"),
    (
        "v2.0",
        squad(QA | {"answers": [{"text": "two", "answer_start": True}]}),
        f"{PLACE}.answers[0]: 'answer_start' must be a whole number",
    ),
    (
        "v2.0",
        squad(QA | {"answers": [{"text": " ", "answer_start": 3}]}),
        f"{PLACE}.answers[0]: the answer's text is empty; drop the answer",
    ),
    (
        "v1.1",
        squad(QA | {"answers": [], "is_impossible": True}),
        f"{PLACE}: is_impossible does not exist in v1.1; use the task squad/v2.0",
    ),
]


@pytest.mark.parametrize(("version", "text", "message"), SQUAD_CASES)
def test_bad_squad_files(tmp_path, version, text, message):
    file = tmp_path / f"train-{version}.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{file}:{message}")):
        read_task(f"squad/{version}", tmp_path)


RACE_CASES = [
    ("{}\n", "1: 'id' must be a string; is this RACE's layout?"),
    (race() + "\n\n" + race(), "3: passage high1: the id is repeated from "),
    (race() + "\nno", "2: not JSON ("),
    ("[]", "1: 'id' must be a string"),
    (race(article=" "), "1: passage high1: 'article' must be a string"),
    (race(questions=[]), "1: passage high1: 'questions' must be a list"),
    (race(questions=[1]), "1: passage high1, question 0: must be a string"),
    (race(options=[]), "1: passage high1: 'options' must be a list of 1"),
    (
        race(options=[["a"]]),
        "1: passage high1, question 0: must have from 2 to 26 options, each a",
    ),
    (race(options=[["a", "b", "c", 4]]), "1: passage high1, question 0: must have from 2 to 26 o"),
    (race(answers=["E"]), "1: passage high1, question 0: answer 'E' must be one of A, B, C, D"),
    (race(answers=[0]), "1: passage high1, question 0: answer 0 must be"),
    (race(answers=["A", "B"]), "1: passage high1: 'answers' must be a list of 1"),
    (race(answers=None), "1: passage high1: 'answers' must be a list of 1"),
    (race(id="1"), "1: passage 1: the id starts with neither middle nor high, so the file"),
    (race(id="middle1"), " contains no race/high passage; give other files"),
]


@pytest.mark.parametrize(("text", "message"), RACE_CASES)
def test_bad_race_files(tmp_path, text, message):
    file = tmp_path / "train.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{file}:{message}")):
        read_task("race/high", tmp_path)


CONLL_CASES = [
    ("a X B-P\nb B-P\n", "2: 2 columns, but the file has 3; restore the word or the tag"),
    ("a\nb\n", "1: no tag next to the word; give a tagged file"),
    ("-DOCSTART- O\n\n", " contains no sentence; fetch the file again"),
    (
        "a O\nb NNP\nc B-X\n",
        "2: tag 'NNP' is neither O nor B-, I-, E-, S-, L- or U- plus a type; are",
    ),
    ("a O\nb B-\n", "2: tag 'B-' is neither"),
    ("a O\n", " contains no entity; give a tagged file, ideally the"),
    ("a I-P\n\nb O\nc B-P\n", "4: 1 entities open with B-, but 1 with I-"),
    ("a B-P\nb E-P\n\nc U-P\n", "4: mixes IOBES and BILOU: E- (line 2), U- (line 4); use one"),
    ("a B-P\nb E-Q\n", "2: E-Q after the open P entity, in a file with E- or S- tags; correct"),
    ("a S-P\nb E-P\n", "2: E-P after no open entity"),
    ("a S-P\nb I-P\n", "2: I-P after no open entity"),
    ("a U-P\nb B-P\nc O\n", "3: O after the open P entity, in a file with L- or U- tags"),
    ("a U-P\nb B-P\n\nc O\n", "2: the sentence's end after the open P entity"),
]


@pytest.mark.parametrize(("text", "message"), CONLL_CASES)
def test_bad_columns(tmp_path, text, message):
    file = tmp_path / "train.txt"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"{file}:{message}")):
        read_task("conll2003", tmp_path)


TABLE_CASES = [
    ("train.tsv", "text|label\na|x\nb\n", "3: 1 columns, but the first line has 2; restore"),
    ("train.tsv", "text|label|text\na|x|b\n", "1: a column's name occurs twice (text, label, t"),
    ("train.tsv", "text|label\n", " contains no row; add some or remove the file"),
    ("train.tsv", "body|label\na|x\n", " no column 'text' or 'sentence' or 'sentence1' or 'text"),
    ("train.tsv", "text|sentence|label\na|b|x\n", " both 'text' and 'sentence' are columns; keep"),
    ("train.tsv", "text\na\n", " no column 'label' (has: text); rename one"),
    ("train.tsv", "text|label\na|x\n |y\n", "3: no text in 'text'; fill it in or drop the row"),
    ("train.tsv", "text|pair|label\na||x\n", "2: no text in 'pair'"),
    ("train.tsv", "text|label\na|x\nb| \n", "3: no label; add one or drop the row"),
    ("train.tsv", "text|label\na|x\nb|x\n", " every label is 'x'; at least two classes are"),
    ("test.tsv", "text|label\na|x\nb|\n", "3: no label, but other rows have one; label all rows"),
    ("test.tsv", "text|label\na|\nb|x\n", "2: no label, but other rows have one; label all rows"),
    ("train.csv", 'text,label\na,x\n"b\nc,y\n', "3: invalid CSV (unexpected end of data)"),
    ("train.csv", 'text,label\n"a\nb",x\nc\n', "4: 1 columns, but the first line has 2"),
    ("train.csv", "text,label\na,x\n\nc,y\n", "3: 0 columns, but the first line has 2"),
    ("train.jsonl", '{"text": "a", "label": "x"}\n[1]\n', "2: not a JSON object; write one"),
    ("train.jsonl", '{"text": "a", "label": 1.5}\n', "1: label 1.5 must be a string or a whole"),
    ("train.jsonl", '{"text": "a", "label": true}\n', "1: label True must be a string or a whole"),
    ("train.jsonl", '{"text": "a", "label": 1}\n{"label": 2}\n', "2: no text in 'text'"),
    ("train.jsonl", '{"text": 1, "label": 1}\n', "1: no text in 'text'"),
]


@pytest.mark.parametrize(("name", "text", "message"), TABLE_CASES)
def test_bad_tables(tmp_path, name, text, message):
    file = tmp_path / name
    file.write_text(text.replace("|", "\t"))
    with pytest.raises(ValueError, match=re.escape(f"{file}:{message}")):
        read_task("classification", tmp_path)


@pytest.mark.parametrize(
    "value", ["inf", "NaN", "1_0", "true", '"a"', '"1e999"', "[1]", "1" + "0" * 400]
)
def test_bad_scores(tmp_path, value):
    value = {"inf": "Infinity", "1_0": '"1_0"'}.get(value, value)
    file = tmp_path / "train.jsonl"
    file.write_text(f'{{"text": "a", "score": 1}}\n{{"text": "a", "score": {value}}}\n')
    with pytest.raises(ValueError, match=r"train\.jsonl:2: score .* is not a finite number"):
        read_task("regression", tmp_path)


def test_labels_and_texts_must_agree_with_train(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "dev.csv").write_text("text,label\na,x\nb,z\n")
    with pytest.raises(ValueError, match=r"dev\.csv:3: label 'z' is not among .*\(x, y\); corr"):
        read_task("classification", tmp_path)
    (tmp_path / "dev.csv").write_text("text,pair,label\na,b,x\n")
    with pytest.raises(ValueError, match=r"dev\.csv: only one of this and .*train\.csv has"):
        read_task("classification", tmp_path)
    (tmp_path / "train.txt").write_text("a B-X\n")
    (tmp_path / "test.txt").write_text("a O\nb B-Y\n")
    with pytest.raises(ValueError, match=r"test\.txt:2: type 'Y' is not in train \(X\); correct"):
        read_task("conll2003", tmp_path)


@pytest.mark.parametrize(
    ("task", "looked_for"),
    [
        ("glue/cola", "train.tsv, dev.tsv, test.tsv"),
        ("squad/v2.0", "train-v2.0.json, dev-v2.0.json"),
        ("race", "train|dev|test/middle|high/*.txt"),
        ("conll2003", "eng.train, eng.testa"),
        ("regression", "train.*, validation.* or dev.*"),
    ],
)
def test_missing_files_are_named(tmp_path, task, looked_for):
    none = tmp_path / "none"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{none}: no such file")) as caught:
        read_task(task, none)
    assert looked_for in str(caught.value)
    (tmp_path / "README").write_text("x")
    with pytest.raises(
        FileNotFoundError, match=re.escape(f"{tmp_path}: holds none of {looked_for}")
    ):
        read_task(task, tmp_path)


def test_what_cannot_be_told_is_an_error(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=r"cannot determine the splits \(a\.json, b\.json\); n"):
        read_task("squad/v2.0", tmp_path)
    for name in ("train.tsv", "train.csv", "mine.jsonl", "x.tsv", "x.xml"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ValueError, match=r"both train\.csv and train\.tsv would be train; keep"):
        read_task("classification", tmp_path)
    for task, name in (("race", "mine.jsonl"), ("conll2003", "x.tsv"), ("glue/rte", "x.tsv")):
        with pytest.raises(ValueError, match=f"{name}: the name does not show"):
            read_task(task, tmp_path / name)
    with pytest.raises(ValueError, match=r"x\.xml: unknown file type; use the suffix \.tsv"):
        read_task("classification", tmp_path / "x.xml")
    for task in ("pretrain", "glue", "glue/snli", "race/low", ""):
        with pytest.raises(ValueError, match=f"config.task.name='{task}' is not a task; "):
            read_task(task, tmp_path)
    with pytest.raises(ValueError, match="task race: no data given"):
        read_task("race", "")
