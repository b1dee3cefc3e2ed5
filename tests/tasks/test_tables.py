"""Columns of tagged words, and a user's own tables, as examples."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
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


# ---- what people have besides the official files ----


def test_plain_types_are_one_entity_while_they_repeat(tmp_path):
    text = "Ann PER\nLee PER\nof O\nUN ORG\nBo PER\n"
    data = read_task("conll2003", write(tmp_path / "train.txt", text))
    [sentence] = data.splits["train"]
    tags = [data.labels[tag] for tag in sentence.tags]
    assert tags == ["B-PER", "I-PER", "O", "B-ORG", "B-PER"]
    [note] = data.notes
    assert "the tags are plain types (ORG, PER)" in note


QUOTED = [
    ["text", "label"],
    ['He said "yes"', "a"],
    ["two\nlines, tab\tin it", "b"],
    ["plain", "a"],
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_tsv_of_a_csv_writer_loses_its_quotes(tmp_path, quoting):
    with open(tmp_path / "train.tsv", "w", newline="") as file:
        csv.writer(file, delimiter="\t", quoting=quoting).writerows(QUOTED)
    data = read_task("classification", tmp_path)
    assert [e.text for e in data.splits["train"]] == [row[0] for row in QUOTED[1:]]
    assert data.notes == (f"{tmp_path / 'train.tsv'}: read as TSV with quoted cells",)


def test_quotes_in_other_tsv_are_text(tmp_path):
    texts = ['"all of it"', 'one " alone', '""', 'say "this" now']
    rows = [f"{text}\t{i % 2}" for i, text in enumerate(texts)]
    data = read_task(
        "classification", write(tmp_path / "train.tsv", "\n".join(["text\tlabel", *rows]))
    )
    assert [e.text for e in data.splits["train"]] == texts
    assert data.notes == ()


def test_csv_with_semicolons_says_so(tmp_path):
    text = 'Text;Label\n"a; b, c";x\nd;y\n'
    data = read_task("classification", write(tmp_path / "train.csv", text))
    assert [(e.text, e.label) for e in data.splits["train"]] == [("a; b, c", 0), ("d", 1)]
    assert "read as CSV with semicolons" in data.notes[0]


@pytest.mark.parametrize("name", ["train.csv.gz", "train.json", "train.parquet", "train.csv"])
def test_tables_of_every_kind(tmp_path, name):
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(4)]
    plain = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows)
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.encode()))
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=1))
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(plain.encode("utf-16"))
    data = read_task("classification", tmp_path)
    assert [(e.text, e.label) for e in data.splits["train"]] == [
        (r["text"], r["label"]) for r in rows
    ]
    assert data.labels == ("0", "1")


def test_labels_of_minus_one_throughout_are_none(tmp_path):
    write(tmp_path / "train.csv", "text,label\na,-1\nb,1\n")
    write(tmp_path / "test.csv", "text,label\na,-1\nb,-1\n")
    data = read_task("classification", tmp_path)
    assert data.labels == ("-1", "1")
    assert [e.label for e in data.splits["train"]] == [0, 1]
    assert [e.label for e in data.splits["test"]] == [None, None]


def test_ids_that_repeat_are_named(tmp_path):
    path = write(tmp_path / "a.csv", "id,text\n7,a\n8,b\n7,c\n")
    with pytest.raises(ValueError, match=r"a\.csv:4: the id 7 is repeated from .*a\.csv:2"):
        read_task("classification", path, to_predict=True)
    path = write(tmp_path / "b.csv", "id,text\n7,a\n,b\n")
    with pytest.raises(ValueError, match=r"b\.csv:3: no 'id'; fill it in or drop the column"):
        read_task("classification", path, to_predict=True)


@pytest.mark.parametrize("count", [2, 5])
def test_any_number_of_options(tmp_path, count):
    options = [f"option {i}" for i in range(count)]
    passage = {"id": "p", "article": "Text.", "questions": ["?", "!"], "options": [options] * 2}
    last = chr(ord("A") + count - 1)
    path = write(tmp_path / "train.jsonl", json.dumps(passage | {"answers": ["A", last]}))
    first, second = read_task("race", path).splits["train"]
    assert first.options == tuple(options)
    assert (first.label, second.label) == (0, count - 1)
    other = passage | {"id": "q", "options": [options, [*options, "more"]], "answers": ["A", "A"]}
    write(path, f"{json.dumps(passage | {'answers': ['A', 'A']})}\n{json.dumps(other)}")
    with pytest.raises(
        ValueError, match=rf"q-1 has {count + 1} options, but the first .* {count}"
    ):
        read_task("race", path)


FLAT = [
    {"id": i, "title": f"T{i}", "context": "It opens at nine.", "question": "When?",
     "answers": {"text": ["nine"], "answer_start": [12]}}
    for i in range(5)
]  # fmt: skip


@pytest.mark.parametrize("layout", ["lines", "array", "data"])
def test_the_flat_layout_of_squad(tmp_path, layout):
    none = FLAT[0] | {"id": "none", "answers": {"text": [], "answer_start": []}}
    rows = [*FLAT, none]
    text = {
        "lines": "\n".join(map(json.dumps, rows)),
        "array": json.dumps(rows),
        "data": json.dumps({"version": "v2", "data": rows}, indent=1),
    }[layout]
    write(tmp_path / "train.json", text)
    questions = read_task("squad/v2.0", tmp_path).splits["train"]
    assert [q.id for q in questions] == ["0", "1", "2", "3", "4", "none"]
    assert questions[0].answers == (("nine", 12),)
    assert questions[-1].answers == ()
    with pytest.raises(ValueError, match=r"question none\): is_impossible does not exist in v1.1"):
        read_task("squad/v1.1", tmp_path)


def test_answers_of_impossible_questions_are_ignored_and_counted(tmp_path):
    blank = [{"text": "", "answer_start": -1}]
    qas = [
        {"id": 1, "question": "?", "is_impossible": True, "answers": blank},
        {"id": 2, "question": "?", "answers": [{"text": "nine", "answer_start": 12}]},
    ]
    root = {"data": [{"paragraphs": [{"context": "It opens at nine.", "qas": qas}]}]}
    data = read_task("squad/v2.0", write(tmp_path / "train-v2.0.json", json.dumps(root)).parent)
    assert [len(q.answers) for q in data.splits["train"]] == [0, 1]
    [note] = data.notes
    assert "1 answers of questions with is_impossible were ignored" in note
