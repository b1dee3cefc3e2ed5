"""Prediction files: in the leaderboard's format if there is one, else plain tables.

Each file is written to a temporary name and then moved into place, so an error leaves the
previous file intact. Everything is checked before the first file is touched.
"""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.data.files import replacing


class LeaderboardFiles(NamedTuple):
    """The format in which a leaderboard expects a task's predictions.

    Attributes:
      by_split: split -> the file's name.
      class_names: the names written for the classes; empty if classes are written as numbers.

    Source: the sample submission and FAQ of https://gluebenchmark.com.
    """

    by_split: Mapping[str, str]
    class_names: tuple[str, ...] = ()


def write_text_predictions(
    files: LeaderboardFiles | None,
    directory: Path | str,
    split: str,
    ids: Sequence[str],
    predictions: np.ndarray,
    labels: Sequence[str] = (),
    probabilities: np.ndarray | None = None,
    others: Sequence[Mapping[str, str]] = (),
) -> Path:
    """Writes the classes or scores of texts.

    A test split of GLUE becomes the file of its leaderboard, such as CoLA.tsv: tab-separated
    `index` and `prediction`; the class's name for MNLI, AX, QNLI and RTE, its index for the
    others, STS-B's scores clipped to 0..5 with three decimals.

    Anything else becomes `SPLIT_predictions.tsv`: tab-separated `id`, `prediction` (the class's
    name, or the score), for each class its probability under `probability of CLASS`, and the
    other columns of the input; one of the same name as these becomes `input NAME`. A field that
    holds a tab, a quote or a line break is quoted as in CSV.

    Args:
      files: the leaderboard's format, if there is one.
      directory: the output directory; created if missing.
      split: the split's name; MNLI's are `test_matched` and `test_mismatched`.
      ids: [N], the ids in the data.
      predictions: [N], classes (integers) or scores.
      labels: the names of the K classes, in order; () for scores.
      probabilities: [N,K]; None leaves them out. GLUE's files have no place for them.
      others: [N], for each row column -> cell. GLUE's files have no place for them either.

    Returns:
      The path of the file.

    Raises:
      ValueError: if an id is repeated, shapes do not match, a class is missing from `labels`,
        class names are not GLUE's, or a score or a probability is not finite.
    """
    predictions = np.asarray(predictions)
    _check_rows(ids, predictions)
    name = files.by_split.get(split) if files else None
    if files and name:
        table = {"index": ids, "prediction": _glue_texts(files, predictions, labels)}
    elif not labels:
        table = {"id": ids, "prediction": [f"{x:.6g}" for x in _finite("a score", predictions)]}
    else:
        table = {"id": ids, "prediction": _class_names(predictions, labels)}
        if probabilities is not None:
            table |= _probability_columns(probabilities, len(ids), labels)
    if not name:
        for column in dict.fromkeys(column for row in others for column in row):
            new = f"input {column}" if column in table else column
            table[new] = [row.get(column, "") for row in others]
    path = Path(directory) / (name or f"{split}_predictions.tsv")
    _write_all({path: _tsv(table)})
    return path


def write_squad(
    directory: Path | str,
    predictions: Mapping[str, str],
    nbest: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    null_odds: Mapping[str, float] | None = None,
) -> list[Path]:
    """Writes answers for SQuAD's official evaluation script.

    Args:
      directory: the output directory; created if missing.
      predictions: id -> the answer's text, "" for none; written to predictions.json.
      nbest: id -> the best answers with their text and scores; written to nbest_predictions.json.
      null_odds: id -> a number that is larger for less answerable questions; written to
        null_odds.json, the script's --na-prob-file.

    Returns:
      The paths of the files written, in this order.

    Raises:
      ValueError: if the ids are not the same in all, or a number is not finite.
    """
    parts = {"predictions": predictions, "nbest_predictions": nbest, "null_odds": null_odds}
    files = {}
    for name, part in parts.items():
        if part is None:
            continue
        if part.keys() != predictions.keys():
            strays = sorted(part.keys() ^ predictions.keys())
            raise ValueError(
                f"{len(strays)} ids are in only one of predictions and {name}; the first is "
                f"{strays[0]!r}"
            )
        files[Path(directory) / f"{name}.json"] = _json(dict(part))
    _write_all(files)
    return list(files)


def write_choices(
    directory: Path | str, split: str, ids: Sequence[str], predictions: np.ndarray
) -> Path:
    """Writes the chosen options as letters: SPLIT_predictions.json, {id: "A"}.

    RACE has no submission format; the letters are those of its own answer keys.

    Args:
      directory: the output directory; created if missing.
      split: the split's name.
      ids: [N], one per question.
      predictions: [N], integers, 0 for A.

    Raises:
      ValueError: if an id is repeated, lengths do not match, or an option is beyond Z.
    """
    predictions = np.asarray(predictions)
    _check_rows(ids, predictions)
    letters = _class_names(predictions, [chr(ord("A") + i) for i in range(26)])
    path = Path(directory) / f"{split}_predictions.json"
    _write_all({path: _json(dict(zip(ids, letters, strict=True)))})
    return path


def write_tags(
    directory: Path | str,
    split: str,
    words: Sequence[Sequence[str]],
    predictions: Sequence[Sequence[str]],
    labels: Sequence[Sequence[str]] | None = None,
) -> Path:
    """Writes words and tags in CoNLL's columns: SPLIT_predictions.txt.

    Each line has a word, its true tag if known and its predicted tag, separated by spaces; an
    empty line follows each sentence. With true tags, conlleval.pl can read the file.

    Args:
      directory: the output directory; created if missing.
      split: the split's name.
      words: for each sentence, its words.
      predictions: for each sentence, a tag for each word.
      labels: for each sentence, the true tags; None if they are not known.

    Raises:
      ValueError: if lengths do not match, or a word or tag is empty or contains a space, tab or
        line break, which would shift the columns.
    """
    columns = [words, predictions] if labels is None else [words, labels, predictions]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"the columns have {[len(column) for column in columns]} sentences")
    lines = []
    for number, sentence in enumerate(zip(*columns, strict=True)):
        if len({len(part) for part in sentence}) > 1:
            raise ValueError(f"sentence {number}: lengths differ: {[len(s) for s in sentence]}")
        for fields in zip(*sentence, strict=True):
            # Matches what readers split at: a word may contain other white space, such as a
            # no-break space.
            bad = [field for field in fields if not re.fullmatch(r"[^ \t\r\n]+", field)]
            if bad:
                raise ValueError(f"sentence {number}: {bad[0]!r} is empty or contains white space")
            lines.append(" ".join(fields))
        lines.append("")
    path = Path(directory) / f"{split}_predictions.txt"
    _write_all({path: "".join(f"{line}\n" for line in lines)})
    return path


def _check_rows(ids: Sequence[str], predictions: np.ndarray) -> None:
    if predictions.shape != (len(ids),):
        raise ValueError(f"{len(ids)} ids for predictions of shape {predictions.shape}")
    seen = set()
    for i in ids:
        if i in seen:
            raise ValueError(f"the id {i!r} occurs twice")
        seen.add(i)


def _glue_texts(
    files: LeaderboardFiles, predictions: np.ndarray, labels: Sequence[str]
) -> list[str]:
    """Returns predictions in the leaderboard's spelling; scores are STS-B's, from 0 to 5."""
    if not labels:
        return [f"{score:.3f}" for score in np.clip(_finite("a score", predictions), 0, 5)]
    if files.class_names:
        if set(labels) != set(files.class_names):
            raise ValueError(f"the classes {', '.join(labels)} are not GLUE's class names")
        return _class_names(predictions, labels)
    if len(labels) != 2:
        raise ValueError(f"GLUE expects 2 classes, not {len(labels)}")
    return _class_names(predictions, ("0", "1"))


def _probability_columns(
    probabilities: np.ndarray, rows: int, labels: Sequence[str]
) -> dict[str, list[str]]:
    table = _finite("a probability", probabilities)
    if table.shape != (rows, len(labels)):
        raise ValueError(f"probabilities must be [{rows},{len(labels)}], not {table.shape}")
    names = [f"probability of {label}" for label in labels]
    return {
        name: [f"{p:.6g}" for p in column] for name, column in zip(names, table.T, strict=True)
    }


def _class_names(classes: np.ndarray, names: Sequence[str]) -> list[str]:
    if classes.dtype.kind not in "iu":
        raise ValueError(f"classes must be integers, not {classes.dtype}")
    if classes.size and not 0 <= classes.min() <= classes.max() < len(names):
        raise ValueError(
            f"classes range from {classes.min()} to {classes.max()}, but there are only "
            f"{len(names)} class names"
        )
    return [str(names[i]) for i in classes]


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} is not finite")
    return values


def _tsv(table: Mapping[str, Sequence[str]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return stream.getvalue()


def _json(value: Any) -> str:
    """Returns JSON of plain values and numpy scalars, escaped to ASCII so any text is valid."""
    return json.dumps(value, indent=2, allow_nan=False, default=lambda x: x.item()) + "\n"


def _write_all(files: Mapping[Path, str]) -> None:
    """Replaces the files' contents, but only once all of the new contents are on disk."""
    encoded = {path: text.encode() for path, text in files.items()}
    with ExitStack() as stack:
        for path, content in encoded.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(replacing(path)).write_bytes(content)
