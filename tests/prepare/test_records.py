"""Documents from JSON of any layout, Parquet and Arrow, whatever field holds the text."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from albert_jax.prepare.corpus import Corpus

RECORDS: list[dict[str, Any]] = [
    {"text": "First one.", "doc": {"id": 1, "text": "Inner one."}, "parts": ["A.", "B."]},
    {"text": "Second\n\none.", "doc": {"id": 2, "text": "Inner two."}, "parts": ["C."]},
]
EXPECTED = {
    "text": [["First one."], ["Second", "one."]],
    "doc.text": [["Inner one."], ["Inner two."]],
    "parts": [["A.", "B."], ["C."]],
}


def documents(path: Path, text_field: str) -> list[list[str]]:
    return [document.paragraphs for document in Corpus([path], text_field=text_field)]


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table, max_chunksize=1)


def write_file(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table, max_chunksize=1)


@pytest.mark.parametrize("field", EXPECTED)
@pytest.mark.parametrize(
    "layout",
    [
        "\n".join(map(json.dumps, RECORDS)),
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=2),
        "\n\n" + "\n".join(json.dumps(record, indent=1) for record in RECORDS),
        f"{json.dumps(RECORDS[:1])}\n{json.dumps(RECORDS[1:])}\n",
    ],
    ids=["lines", "array", "pretty array", "pretty objects", "two arrays"],
)
def test_json_of_any_layout(tmp_path: Path, layout: str, field: str):
    path = tmp_path / "a.json"
    path.write_text(layout)
    assert documents(path, field) == EXPECTED[field]


@pytest.mark.parametrize("field", EXPECTED)
def test_parquet_and_arrow(tmp_path: Path, field: str):
    table = pa.Table.from_pylist(RECORDS)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1)
    write_file(table, tmp_path / "a.feather")
    write_stream(table, tmp_path / "a.arrow")
    for name in ("a.parquet", "a.feather", "a.arrow"):
        assert documents(tmp_path / name, field) == EXPECTED[field]


def test_a_field_whose_name_has_a_dot_comes_first(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"doc.text": "Outer.", "doc": {"text": "Inner."}}\n')
    assert documents(path, "doc.text") == [["Outer."]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.json",
            '[{"text": "x"}, {"body": "y"}]',
            r"record 1: no text in field 'text' \(has: bo",
        ),
        ("a.json", '[{"text": "x"},\n{"text": ]', r"a\.json:2: not JSON"),
        ("a.json", '{\n"text": "x"}\n{\n"text": 1', r"a\.json:4: not JSON"),
        ("a.jsonl", '{"text": "x"}\n{"text": "y"\n', r"a\.jsonl:2: not JSON"),
        ("a.jsonl", '{"doc": {"body": "x"}}\n', r"a\.jsonl:1: .*\(has: doc\.body\)"),
        ("a.jsonl", '{"text": ["x", 3]}\n', r"a\.jsonl:1: no text in field"),
        ("a.jsonl", '{"text": []}\n', r"a\.jsonl:1: no text in field"),
        ("a.jsonl", '{"text": "\\ud800"}\n', r"a\.jsonl:1: .*half a surrogate pair"),
        ("a.parquet", "PAR1 and then nothing", r"a\.parquet: damaged Parquet file"),
        ("a.arrow", "ARROW1 and then nothing", r"a\.arrow: damaged Arrow file"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, name: str, text: str, message: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        documents(tmp_path / name, "text")


def test_a_missing_column_is_an_error(tmp_path: Path):
    pq.write_table(pa.table({"body": ["x"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column 'text' \(has: body, n\); name it with --tex"):
        documents(tmp_path / "a.parquet", "text")
    with pytest.raises(ValueError, match="record 0: no text in field 'n'"):
        documents(tmp_path / "a.parquet", "n")
