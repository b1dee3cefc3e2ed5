"""Reader of your own tables of texts with classes or scores: TSV, CSV or JSON lines."""

import csv
import io
import os
import re
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from albert_jax.data.files import parse_json
from albert_jax.tasks.examples import TaskData, TextExample
from albert_jax.tasks.readers.files import (
    find_splits,
    finite,
    read_lines,
    read_text,
    split_in_name,
)

TEXT = ("text", "sentence", "sentence1", "text_a")
PAIR = ("pair", "sentence2", "text_b")
CLASS = ("label",)
SCORE = ("score", "label")
SUFFIXES = (".tsv", ".csv", ".jsonl")
LOOKED_FOR = "train.*, validation.* or dev.*, test.* with .tsv, .csv or .jsonl"

NUMBER = re.compile(r"-?\d+(\.\d+)?")


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


def read_table(name: str, source: str) -> TaskData:
    """Reads a table with one or two texts and a class or score per row.

    The columns (or keys) are one of `TEXT`, one of `PAIR` for a second text, and "label" (or
    "score" for scores); others are ignored. The first line of TSV (no quoting) and CSV (quoting)
    names them. A test file may have no labels.

    Args:
      name: "classification" or "regression".
      source: a folder with `LOOKED_FOR`, or one file, which is train unless its name says
        otherwise.

    Returns:
      The splits whose files exist. The classes are train's, sorted; by value if all names are
      numbers. Without a train file they are those of the other files, perhaps none; a caller
      with a trained model must use the model's classes.

    Raises:
      FileNotFoundError: if the source or all of the files are missing.
      ValueError: if a file is malformed, a class is not in train, or a score is not finite.
    """
    files = find_splits(
        source, lambda n: split_in_name(n) if n.endswith(SUFFIXES) else None, LOOKED_FOR, "train"
    )
    found = {split: (path, read_rows(path)) for split, path in files.items()}
    return text_data(found, name == "regression")


def read_rows(path: str) -> list[Record]:
    """Returns the rows of a file, in the format given by its suffix.

    Raises:
      ValueError: if the file is malformed.
    """
    suffix = os.path.splitext(path)[1]
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: unknown file type; use the suffix {', '.join(SUFFIXES)}")
    if suffix == ".jsonl":
        return _read_jsonl(path)
    (_, header), *rows = _read_tsv(path) if suffix == ".tsv" else _read_csv(path)
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


def _read_tsv(path: str) -> list[tuple[int, list[str]]]:
    return [(number, line.split("\t")) for number, line in enumerate(read_lines(path), 1)]


def _read_csv(path: str) -> list[tuple[int, list[str]]]:
    """Returns the records of CSV, each with the line where it starts."""
    text = read_text(path)
    limit = csv.field_size_limit(sys.maxsize)  # a text may be longer than the default 128 KiB
    records, line = [], 1
    try:
        reader = csv.reader(io.StringIO(text.rstrip(), newline=""), strict=True)
        for record in reader:
            records.append((line, record))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{line}: invalid CSV ({error}); correct the quotes") from None
    finally:
        csv.field_size_limit(limit)
    return records


def _read_jsonl(path: str) -> list[Record]:
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            cells = parse_json(line, path, number)
            if not isinstance(cells, dict):
                raise ValueError(f"{path}:{number}: not a JSON object; write one per line")
            rows.append(Record(f"{path}:{number}", cells))
    return rows


def text_data(
    found: dict[str, tuple[str, list[Record]]],
    regression: bool,
    classes: tuple[str, ...] | None = None,
    blank: bool = False,
) -> TaskData:
    """Returns the examples of rows.

    Args:
      found: for each split, in order, its name in messages and its rows.
      regression: whether labels are scores.
      classes: the classes in order; None determines them as in `read_table`.
      blank: whether a text may be blank.

    Raises:
      ValueError: if a row is malformed, or its class is unknown.
    """
    splits = {
        split: _examples(path, rows, regression, split.startswith("test"), blank)
        for split, (path, rows) in found.items()
    }
    first, *others = splits
    for split in others:
        if (splits[split][0].pair is None) != (splits[first][0].pair is None):
            raise ValueError(
                f"{found[split][0]}: only one of this and {found[first][0]} has a second text; "
                "give it in both or in neither"
            )
    if regression:
        return TaskData(splits, ())
    if classes is None:
        classes = _classes(splits, found)
    ids = {name: i for i, name in enumerate(classes)}
    for split, (_, rows) in found.items():
        for row, example in zip(rows, splits[split], strict=True):
            if example.label not in (None, *ids):
                raise ValueError(
                    f"{row.where}: label {example.label!r} is not among the classes of train "
                    f"({', '.join(classes)[:200]}); correct it"
                )
        splits[split] = [e._replace(label=ids.get(e.label)) for e in splits[split]]
    return TaskData(splits, classes)


def _classes(
    splits: dict[str, list[Any]], found: dict[str, tuple[str, list[Record]]]
) -> tuple[str, ...]:
    """Returns the classes of train, or of all splits if there is no train, sorted."""
    known = [splits["train"]] if "train" in splits else list(splits.values())
    names = {e.label for examples in known for e in examples if e.label is not None}
    if "train" in splits and len(names) < 2:
        raise ValueError(
            f"{found['train'][0]}: every label is {min(names)!r}; at least two classes are needed"
        )
    if all(NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def _examples(
    path: str, rows: list[Record], regression: bool, is_test: bool, blank: bool
) -> list[Any]:
    """Returns a split's examples, with classes as names."""
    if not rows:
        raise ValueError(f"{path}: contains no row; add some or remove the file")
    columns = {key: None for row in rows for key in row.cells}
    text = _pick(columns, TEXT, path)
    pair = _pick(columns, PAIR, path, needed=False)
    label = _pick(columns, SCORE if regression else CLASS, path, needed=not is_test) or ""
    examples = []
    for number, row in enumerate(rows):
        first = _text(row, text, blank)
        second = _text(row, pair, blank) if pair else None
        value: Any = _label(row.cells.get(label), regression, row.where)
        # Labels in only some rows of a test file are a mistake that would skew its scores.
        if value is None and (not is_test or (examples and examples[0].label is not None)):
            raise ValueError(f"{row.where}: no label; add one or drop the row")
        if value is not None and examples and examples[0].label is None:
            raise ValueError(
                f"{row.where}: has a label, but earlier rows have none; label all rows or none"
            )
        examples.append(TextExample(row.id or str(number), first, second, value))
    return examples


def _label(value: Any, regression: bool, where: str) -> str | float | None:
    """Returns the name of a class, a score, or None for an empty cell."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if regression:
        return finite(value, where)
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ValueError(
            f"{where}: label {value!r} must be a string or a whole number; correct it"
        )
    return str(value).strip()


def _pick(
    columns: Iterable[str], names: tuple[str, ...], path: str, needed: bool = True
) -> str | None:
    """Returns which of these names is a column."""
    there = [name for name in names if name in columns]
    if len(there) > 1:
        raise ValueError(f"{path}: both {there[0]!r} and {there[1]!r} are columns; keep one")
    if not there and needed:
        raise ValueError(
            f"{path}: no column {' or '.join(map(repr, names))} "
            f"(has: {', '.join(columns)[:200]}); rename one"
        )
    return there[0] if there else None


def _text(row: Record, column: Any, blank: bool) -> str:
    value = row.cells.get(column)
    if not isinstance(value, str) or not (blank or value.strip()):
        raise ValueError(f"{row.where}: no text in {column!r}; fill it in or drop the row")
    return value
