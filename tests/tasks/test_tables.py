"""Columns of tagged words, and a user's own tables, as examples."""

import csv
import json

import pytest

from albert_jax.tasks.examples import TextExample
from albert_jax.tasks.registry import read_task


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", newline="")
    return path


# ---- columns ----

WORDS = ["Ann", "van", "Lee", "of", "UN", "UN", "Aid", "met", "Bo"]
IOB2 = ["B-PER", "I-PER", "I-PER", "O", "B-ORG", "B-ORG", "I-ORG", "O", "B-PER"]


@pytest.mark.parametrize(
    "tags",
    [
        "I-PER I-PER I-PER O I-ORG B-ORG I-ORG O I-PER",
        "B-PER I-PER I-PER O B-ORG B-ORG I-ORG O B-PER",
        "B-PER I-PER E-PER O S-ORG B-ORG E-ORG O S-PER",
        "B-PER I-PER L-PER O U-ORG B-ORG L-ORG O U-PER",
    ],
)
def test_all_ways_to_tag(tmp_path, tags):
    lines = [f"{word}\tX {tag}" for word, tag in zip(WORDS, tags.split(), strict=True)]
    text = "-DOCSTART- -X- O\n\n" + "\n".join(lines) + "\n\n\n-DOCSTART- -X-\nOne X O\n"
    data = read_task("conll2003", write(tmp_path / "train.txt", text))
    assert data.labels == ("O", "B-ORG", "I-ORG", "B-PER", "I-PER")
    first, second = data.splits["train"]
    assert first.words == tuple(WORDS)
    assert [data.labels[t] for t in first.tags] == IOB2
    assert second == ("1", ("One",), (0,))
    assert data.notes == ()


def test_columns_by_any_name(tmp_path):
    names = ("eng.train", "eng.testa", "eng.testb"), ("train.txt", "valid.txt", "test.txt")
    for i, files in enumerate([*names, ("train.conll", "dev.conll", "test.conll")]):
        for file in files:
            write(tmp_path / f"{i}" / file, "No\u00a0. B-X\r\n")
        write(tmp_path / f"{i}" / "README.txt", "x")
        data = read_task("conll2003", tmp_path / f"{i}")
        assert list(data.splits) == ["train", "validation", "test"]
        assert data.splits["test"][0].words == ("No\u00a0.",)
    write(tmp_path / "2" / "test.conll", "Words\nalone\n")
    assert read_task("conll2003", tmp_path / "2").splits["test"][0].tags is None
    assert read_task("conll2003", tmp_path / "2" / "test.conll").labels == ()


def test_types_come_from_train_or_from_all(tmp_path):
    write(tmp_path / "train.txt", "a B-Z\nb B-A\n")
    write(tmp_path / "dev.txt", "a B-Z\n")
    data = read_task("conll2003", tmp_path)
    assert data.labels == ("O", "B-A", "I-A", "B-Z", "I-Z")
    assert data.splits["validation"][0].tags == (3,)
    assert read_task("conll2003", tmp_path / "dev.txt").labels == ("O", "B-Z", "I-Z")


def test_a_few_stray_openings_are_noted(tmp_path):
    usual = "a I-X\n\n" * 200
    data = read_task("conll2003", write(tmp_path / "train.txt", usual + "a O\nb B-X\n"))
    assert data.splits["train"][-1].tags == (0, 1)
    assert len(data.notes) == 1
    assert "train.txt:402: 1 entities open with B-, but 200 with I-" in data.notes[0]


# ---- tables ----

ROWS = [('Say "so", he said.', "No.", "pos"), ("Tab? No.\x85", "So\u2028!", "neg")]


def write_table(path, names, rows):
    if path.suffix == ".tsv":
        return write(path, "".join("\t".join(row) + "\n" for row in [names, *rows]))
    with open(path, "w", encoding="utf-8", newline="") as f:
        if path.suffix == ".csv":
            csv.writer(f).writerows([names, *rows])
        else:
            lines = (json.dumps(dict(zip(names, row, strict=True))) for row in rows)
            f.write("\n".join(lines))
    return path


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
@pytest.mark.parametrize(
    "names",
    [
        ("text", "pair", "label"),
        ("sentence1", "sentence2", "label"),
        ("text_a", "text_b", "label"),
    ],
)
def test_tables(tmp_path, suffix, names):
    write_table(tmp_path / f"train.{suffix}", names, ROWS)
    write_table(tmp_path / f"dev.{suffix}", names, ROWS[1:])
    write_table(tmp_path / f"test.{suffix}", names[:2], [row[:2] for row in ROWS])
    write(tmp_path / "training.log", "x")
    data = read_task("classification", tmp_path)
    assert data.labels == ("neg", "pos")
    assert list(data.splits) == ["train", "validation", "test"]
    texts = [row[:2] for row in ROWS]
    assert data.splits["train"] == [
        TextExample("0", *texts[0], 1),
        TextExample("1", *texts[1], 0),
    ]
    assert data.splits["validation"] == [TextExample("0", *texts[1], 0)]
    assert [e.label for e in data.splits["test"]] == [None, None]


def test_csv_records_of_several_lines_and_sizes(tmp_path):
    long = "x" * 200_000
    text = f'text,label\r\n"One,\r\ntwo",a\r\n{long},b\r\n\r\n'
    data = read_task("classification", write(tmp_path / "mine.csv", text))
    assert [e.text for e in data.splits["train"]] == ["One,\r\ntwo", long]
    assert csv.field_size_limit() < 200_000


def test_one_file_is_train_unless_named(tmp_path):
    rows = [("a", "x"), ("b", "y")]
    for name, split in {"mine": "train", "dev-2": "validation", "test": "test"}.items():
        file = write_table(tmp_path / f"{name}.tsv", ("text", "label"), rows)
        data = read_task("classification", file)
        assert list(data.splits) == [split]
        assert data.labels == ("x", "y")
    bare = write_table(tmp_path / "test.csv", ("text",), [("a",)])
    assert read_task("classification", bare) == (
        {"test": [TextExample("0", "a", None, None)]},
        (),
        (),
    )


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        ([10, 9, -1], ("-1", "9", "10")),
        (["1.5", "1.25", "0"], ("0", "1.25", "1.5")),
        (["10", "9", "b"], ("10", "9", "b")),
        (["a ", " B", "a"], ("B", "a")),
    ],
)
def test_order_of_classes(tmp_path, labels, order):
    lines = [json.dumps({"text": "x", "label": label}) for label in labels]
    data = read_task("classification", write(tmp_path / "train.jsonl", "\n".join(lines)))
    assert data.labels == order
    assert [data.labels[e.label] for e in data.splits["train"]] == [str(x).strip() for x in labels]


@pytest.mark.parametrize("column", ["score", "label"])
def test_regression(tmp_path, column):
    write_table(tmp_path / "train.tsv", ("text", column), [("a", "-1.5"), ("b", "2e1")])
    write(tmp_path / "validation.jsonl", json.dumps({"text": "a", column: 3}))
    data = read_task("regression", tmp_path)
    assert [e.label for e in data.splits["train"]] == [-1.5, 20.0]
    assert [e.label for e in data.splits["validation"]] == [3.0]
    assert isinstance(data.splits["validation"][0].label, float)
    assert data.labels == ()
