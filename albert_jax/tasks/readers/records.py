"""Rows of tables as people have them: TSV, CSV, JSON and Parquet."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from albert_jax.data.files import parse_json
from albert_jax.data.text_files import name_without_compression
from albert_jax.tasks.readers.files import read_lines, read_text

SUFFIXES = (".tsv", ".csv", ".jsonl", ".json", ".parquet")


class Record(NamedTuple):
    """One row.

    Attributes:
      where: the file and the line, for messages.
      cells: column -> value.
      id: the row's id; None stands for its number from 0.
    """

    where: str
    cells: dict[str, Any]
    id: str | None = None


def suffix_of(path: str) -> str:
    """Returns the suffix that shows a table's format, whatever its compression."""
    return os.path.splitext(name_without_compression(path).lower())[1]


def read_rows(path: str, notes: list[str]) -> list[Record]:
    """Returns the rows of a file, in the format given by its suffix.

    Args:
      path: the file.
      notes: receives a line if the file is not in the usual dialect of its format.

    Raises:
      ValueError: if the file is malformed.
    """
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: unknown file type; use the suffix {', '.join(SUFFIXES)}")
    if suffix == ".parquet":
        return _read_parquet(path)
    if suffix in (".jsonl", ".json"):
        return read_json_rows(path)
    (_, header), *rows = _read_tsv(path, notes) if suffix == ".tsv" else _read_csv(path, notes)
    names = [name.strip() for name in header]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}:1: a column's name occurs twice ({', '.join(names)}); keep one")
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(
                f"{path}:{line}: {len(row)} columns, but the first line has {len(names)}; "
                "restore the separators (and in CSV the quotes)"
            )
    return [Record(f"{path}:{line}", dict(zip(names, row, strict=True))) for line, row in rows]


def _read_tsv(path: str, notes: list[str]) -> list[tuple[int, list[str]]]:
    """Returns the lines' cells; quotes are text, unless a CSV writer wrote the file."""
    text = read_text(path)
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL) if '"' in text else ():
        if records := _as_written(text, quoting):
            notes.append(f"{path}: read as TSV with quoted cells")
            return records
    return [(number, line.split("\t")) for number, line in enumerate(read_lines(path), 1)]


def _as_written(text: str, quoting: Any) -> list[tuple[int, list[str]]] | None:
    """Returns the records of quoted TSV if writing them again gives the same text."""
    lines = "\n".join(line.removesuffix("\r") for line in text.rstrip().split("\n")) + "\n"
    try:
        records = _records(io.StringIO(lines, newline=""), "\t")
    except csv.Error:
        return None
    again = io.StringIO(newline="")
    writer = csv.writer(again, delimiter="\t", lineterminator="\n", quoting=quoting)
    writer.writerows(cells for _, cells in records)
    return records if again.getvalue() == lines else None


def _read_csv(path: str, notes: list[str]) -> list[tuple[int, list[str]]]:
    """Returns the records of CSV, each with the line where it starts."""
    text = read_text(path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # the first of those that are as frequent
    if delimiter != ",":
        name = "semicolons" if delimiter == ";" else "tabs"
        notes.append(f"{path}: read as CSV with {name} between the cells")
    try:
        return _records(io.StringIO(text.rstrip(), newline=""), delimiter)
    except csv.Error as error:
        reason, line = error.args
        raise ValueError(f"{path}:{line}: invalid CSV ({reason}); correct the quotes") from None


def _records(text: io.StringIO, delimiter: str) -> list[tuple[int, list[str]]]:
    """Returns the records, each with the line where it starts.

    Raises:
      csv.Error: with the reason and that line, if the quotes are not balanced.
    """
    limit = csv.field_size_limit(sys.maxsize)  # a text may be longer than the default 128 KiB
    records, line = [], 1
    try:
        reader = csv.reader(text, strict=True, delimiter=delimiter)
        for record in reader:
            records.append((line, record))
            line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(str(error), line) from None
    finally:
        csv.field_size_limit(limit)
    return records


def read_json_rows(path: str) -> list[Record]:
    """Returns the objects of JSON lines, or of a JSON array.

    Raises:
      ValueError: if the file is malformed.
    """
    lines = read_lines(path)
    if "".join(lines[:1]).lstrip().startswith("["):
        values: Iterable[tuple[str, Any]] = (
            (f"{path}: row {number}", value)
            for number, value in enumerate(parse_json("\n".join(lines), path))
        )
    else:
        values = (
            (f"{path}:{number}", parse_json(line, path, number))
            for number, line in enumerate(lines, 1)
            if line.strip()
        )
    rows = []
    for where, cells in values:
        if not isinstance(cells, Mapping):
            raise ValueError(f"{where}: not a JSON object; write one per line")
        rows.append(Record(where, dict(cells)))
    return rows


def _read_parquet(path: str) -> list[Record]:
    try:
        cells = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path}: damaged Parquet file ({error}); fetch it again") from None
    return [Record(f"{path}: row {number}", row) for number, row in enumerate(cells)]


def as_text(value: Any) -> str:
    """Returns a cell as it is written to a table."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
