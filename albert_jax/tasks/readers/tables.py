"""Reader of your own tables of texts with classes or scores."""

import os
import re
from collections.abc import Iterable
from typing import Any

from albert_jax.tasks.examples import TaskData, TextExample
from albert_jax.tasks.readers.files import (
    find_splits,
    finite,
    split_in_name,
    split_of_lone,
)
from albert_jax.tasks.readers.records import SUFFIXES, Record, as_text, read_rows, suffix_of

TEXT = ("text", "sentence", "sentence1", "text_a")
PAIR = ("pair", "sentence2", "text_b")
CLASS = ("label",)
SCORE = ("score", "label")
ID = ("id",)
LOOKED_FOR = f"train.*, validation.* or dev.*, test.* with {', '.join(SUFFIXES)}"
NO_LABEL = "-1"  # in place of labels, where a file has none

NUMBER = re.compile(r"-?\d+(\.\d+)?")


def read_table(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads a table with one or two texts and a class or score per row.

    The columns (or keys), in upper or lower case, are one of `TEXT`, one of `PAIR` for a second
    text, and "label" (or "score" for scores). The first line of TSV and CSV names them. A test
    file may have no labels, which may also be given as -1 throughout.

    Args:
      name: "classification" or "regression".
      source: a folder with `LOOKED_FOR`, or one file, which is train unless its name says
        otherwise.
      to_predict: whether the rows are to be predicted. Then no file needs labels, ids are those
        of the column "id", and the other columns are kept.

    Returns:
      The splits whose files exist. The classes are train's, sorted; by value if all names are
      numbers. Without a train file they are those of the other files, perhaps none; a caller
      with a trained model must use the model's classes.

    Raises:
      FileNotFoundError: if the source or all of the files are missing.
      ValueError: if a file is malformed, a class is not in train, or a score is not finite.
    """
    notes: list[str] = []
    found = find_tables(source, to_predict, notes)
    data = text_data(found, name == "regression", to_predict=to_predict)
    return data._replace(notes=(*notes, *data.notes))


def find_tables(
    source: str, to_predict: bool, notes: list[str]
) -> dict[str, tuple[str, list[Record]]]:
    """Returns the file and the rows of each split; `notes` gets lines for the user.

    The arguments and errors are those of `read_table`.
    """
    if to_predict and os.path.isfile(source):
        files = {split_of_lone(source): source}
    else:
        files = find_splits(
            source,
            lambda n: split_in_name(n) if suffix_of(n) in SUFFIXES else None,
            LOOKED_FOR,
            "train",
        )
    return {split: (path, read_rows(path, notes)) for split, path in files.items()}


def text_data(
    found: dict[str, tuple[str, list[Record]]],
    regression: bool,
    classes: tuple[str, ...] | None = None,
    blank: bool = False,
    to_predict: bool = False,
    unlabelled: bool = False,
) -> TaskData:
    """Returns the examples of rows.

    Args:
      found: for each split, in order, its name in messages and its rows.
      regression: whether labels are scores.
      classes: the classes in order; None determines them as in `read_table`.
      blank: whether a text may be blank.
      to_predict: as for `read_table`.
      unlabelled: whether any split may have no labels, not only test.

    Raises:
      ValueError: if a row is malformed, or its class is unknown.
    """
    notes: list[str] = []
    splits = {
        split: _examples(
            path,
            rows,
            regression,
            blank,
            to_predict or unlabelled or split.startswith("test"),
            to_predict,
            notes,
        )
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
        return TaskData(splits, (), tuple(notes))
    if classes is None:
        classes = _classes(splits, found, to_predict)
    ids = {name: i for i, name in enumerate(classes)}
    for split, (_, rows) in found.items():
        for row, example in zip(rows, splits[split], strict=True):
            if example.label not in (None, *ids):
                raise ValueError(
                    f"{row.where}: label {example.label!r} is not among the classes of train "
                    f"({', '.join(classes)[:200]}); correct it"
                )
        splits[split] = [e._replace(label=ids.get(e.label)) for e in splits[split]]
    return TaskData(splits, classes, tuple(notes))


def _classes(
    splits: dict[str, list[Any]], found: dict[str, tuple[str, list[Record]]], to_predict: bool
) -> tuple[str, ...]:
    """Returns the classes of train, or of all splits if there is no train, sorted."""
    has_train = "train" in splits and not to_predict
    known = [splits["train"]] if has_train else list(splits.values())
    names = {e.label for examples in known for e in examples if e.label is not None}
    if has_train and len(names) < 2:
        raise ValueError(
            f"{found['train'][0]}: every label is {min(names)!r}; at least two classes are needed"
        )
    if all(NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def _examples(
    path: str,
    rows: list[Record],
    regression: bool,
    blank: bool,
    unlabelled: bool,
    to_predict: bool,
    notes: list[str],
) -> list[Any]:
    """Returns a split's examples, with classes as names; see `text_data`."""
    if not rows:
        raise ValueError(f"{path}: contains no row; add some or remove the file")
    columns = list({key: None for row in rows for key in row.cells})
    text = _pick(columns, TEXT, path)
    pair = _pick(columns, PAIR, path, needed=False)
    label = _pick(columns, SCORE if regression else CLASS, path, needed=not unlabelled) or ""
    labels: list[Any] = [_label(row.cells.get(label), regression, row.where) for row in rows]
    if unlabelled and not regression and all(value == NO_LABEL for value in labels):
        labels = [None] * len(rows)
    missing = [row.where for row, value in zip(rows, labels, strict=True) if value is None]
    if missing and not unlabelled:
        raise ValueError(f"{missing[0]}: no label; add one or drop the row")
    if missing and len(missing) < len(rows):
        # Scores over the others would not be those of the file.
        if not to_predict:
            raise ValueError(
                f"{missing[0]}: no label, but other rows have one; label all rows or none"
            )
        notes.append(f"{path}: {len(missing)} of {len(rows)} rows have no label; no metrics")
    ids = _ids(path, columns, rows) if to_predict else [row.id for row in rows]
    return [
        TextExample(
            str(number) if own is None else own,
            _text(row, text, blank),
            _text(row, pair, blank) if pair else None,
            value,
            _others(row) if to_predict else {},
        )
        for number, (row, own, value) in enumerate(zip(rows, ids, labels, strict=True))
    ]


def _ids(path: str, columns: list[str], rows: list[Record]) -> list[str | None]:
    """Returns the ids that the file gives its rows, if it does."""
    column = _pick(columns, ID, path, needed=False)
    if column is None:
        return [row.id for row in rows]
    seen: dict[str, str] = {}
    for row in rows:
        own = as_text(row.cells.get(column)).strip()
        if not own:
            raise ValueError(f"{row.where}: no {column!r}; fill it in or drop the column")
        if seen.setdefault(own, row.where) != row.where:
            raise ValueError(
                f"{row.where}: the id {own} is repeated from {seen[own]}; rename the column, and "
                "rows are numbered"
            )
    return list(seen)


def _others(row: Record) -> dict[str, str]:
    return {name: as_text(value) for name, value in row.cells.items() if name.lower() not in ID}


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
    exact = [name for name in names if name in columns]
    there = exact or [column for column in columns if column.lower() in names]
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
