"""Readers of CLUE's official JSON files and of XNLI.

CLUE's files are train.json, dev.json and test.json in a folder per task, one object a line.

Source: https://github.com/CLUEbenchmark/CLUE (classification, baselines/models/*/*.py for
CLUEWSC's marks), https://github.com/CLUEbenchmark/CLUENER2020,
https://github.com/facebookresearch/XNLI.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from albert_jax.data.tfds import TfdsSplits
from albert_jax.tasks.examples import TaskData
from albert_jax.tasks.readers.conll import Sentence, tagged_data
from albert_jax.tasks.readers.files import find_splits, read_lines, split_in_name, split_of_lone
from albert_jax.tasks.readers.glue import NLI, PAIR
from albert_jax.tasks.readers.records import Record, read_json_rows
from albert_jax.tasks.readers.tables import text_data

LOOKED_FOR = "train.json, dev.json, test.json"
# Of TNEWS; 105 and 111 do not exist.
_NEWS = tuple(str(i) for i in range(100, 117) if i not in (105, 111))


class ClueTask(NamedTuple):
    """The fields of a task's objects, and its classes."""

    labels: tuple[str, ...]
    text: str = "sentence"
    pair: str | None = None


CLUE_TASKS = {
    "tnews": ClueTask(_NEWS),
    "iflytek": ClueTask(tuple(map(str, range(119)))),
    "afqmc": ClueTask(("0", "1"), "sentence1", "sentence2"),
    "cmnli": ClueTask(NLI, "sentence1", "sentence2"),
    "cluewsc": ClueTask(("false", "true"), "text"),
}
# The languages of XNLI. Source: arXiv:1809.05053, section 3.
XNLI_LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur",
                  "vi", "zh")  # fmt: skip


def read_clue(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads a classification task; rows of CMNLI on which annotators disagree ("-") are left out.

    Args:
      name: "clue/" and one of `CLUE_TASKS`.
      source: the task's folder, or one file of it.
      to_predict: whether the rows are to be predicted; they then need no labels.

    Raises:
      FileNotFoundError: if the source or all files are missing.
      ValueError: if a file is malformed.
    """
    task_name = name.removeprefix("clue/")
    task = CLUE_TASKS[task_name]
    found, notes = {}, []
    for split, path in _files(source, to_predict).items():
        rows = [_text_record(task_name, task, row) for row in read_json_rows(path)]
        kept = [row for row in rows if row.cells.get("label") != "-"]
        if len(kept) < len(rows):
            notes.append(f"{path}: left out {len(rows) - len(kept)} rows without an agreed label")
        found[split] = (path, kept)
    data = text_data(found, False, task.labels, to_predict=to_predict)
    return data._replace(notes=(*notes, *data.notes))


def _files(source: str, to_predict: bool) -> dict[str, str]:
    if to_predict and os.path.isfile(source):
        return {split_of_lone(source): source}
    return find_splits(
        source,
        lambda file: split_in_name(file) if file.endswith(".json") else None,
        LOOKED_FOR,
        None,
    )


def _text_record(task_name: str, task: ClueTask, row: Record) -> Record:
    values = row.cells
    text = _text(values, task.text, row.where)
    if task_name == "cluewsc":
        text = _marked(text, values.get("target"), row.where)
    cells: dict[str, Any] = {"text": text}
    if task.pair is not None:
        cells["pair"] = _text(values, task.pair, row.where)
    if "label" in values:
        cells["label"] = str(values["label"]).lower()
    number = values.get("id", values.get("idx"))
    return Record(row.where, cells, None if number is None else str(number))


def _text(values: Mapping[str, Any], field: str, where: str) -> str:
    if not isinstance(values.get(field), str):
        raise ValueError(f"{where}: {field!r} must be a string; is this the task's official file?")
    return values[field]


def _marked(text: str, target: Any, where: str) -> str:
    """Returns the text with _ _ around the noun and [ ] around the pronoun."""
    try:
        spans = [
            (int(target[f"span{n}_index"]), str(target[f"span{n}_text"]), marks)
            for n, marks in ((1, "__"), (2, "[]"))
        ]
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{where}: 'target' must give span1_text, span1_index, span2_text and span2_index"
        ) from None
    for at, span, (before, after) in sorted(spans, reverse=True):
        if not text.startswith(span, at):
            raise ValueError(f"{where}: {span!r} is not at {at} of the text; correct its index")
        text = f"{text[:at]}{before}{span}{after}{text[at + len(span) :]}"
    return text


def read_cluener(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads CLUENER; every character is a word, and entities are tagged in IOB2.

    Raises:
      FileNotFoundError: if the source or all files are missing.
      ValueError: if a file is malformed, or entities overlap.
    """
    del name
    found = {}
    for split, path in _files(source, to_predict).items():
        sentences = []
        for line, row in enumerate(read_json_rows(path), 1):
            characters = tuple(_text(row.cells, "text", row.where))
            is_tagged = "label" in row.cells and not to_predict
            tags = _tags(row, len(characters)) if is_tagged else ()
            sentences.append(Sentence(characters, tags, (line,) * len(characters)))
        found[split] = (path, sentences)
    return tagged_data(found)


def _tags(row: Record, length: int) -> tuple[str, ...]:
    """Returns the tags of a CLUENER object: type -> entity -> [[first, last], …]."""
    tags = ["O"] * length
    try:
        spans = [
            (kind, int(first), int(last) + 1)
            for kind, entities in row.cells["label"].items()
            for places in entities.values()
            for first, last in places
        ]
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"{row.where}: 'label' must be type -> entity -> [[first, last], …]"
        ) from None
    for kind, first, end in spans:
        if not 0 <= first < end <= length:
            raise ValueError(
                f"{row.where}: the {kind} at {first} to {end - 1} is outside the text; correct it"
            )
        if any(tag != "O" for tag in tags[first:end]):
            raise ValueError(f"{row.where}: the {kind} at {first} overlaps another; drop one")
        tags[first:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - first - 1)]
    return tuple(tags)


def read_xnli(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads XNLI's TSV files in one language.

    Args:
      name: "xnli/" and one of `XNLI_LANGUAGES`.
      source: a folder with xnli.dev.tsv, xnli.test.tsv and, from the machine translations,
        multinli.train.LANGUAGE.tsv; or one of them.
      to_predict: whether the rows are to be predicted; they then need no labels.

    Raises:
      FileNotFoundError: if the source or all files are missing.
      ValueError: if a file is malformed, or has no row of the language.
    """
    language = name.removeprefix("xnli/")
    names = {
        f"multinli.train.{language}.tsv": "train",
        "xnli.dev.tsv": "validation",
        "xnli.test.tsv": "test",
    }
    paths = find_splits(source, names.get, ", ".join(names), None)
    found = {split: (path, _xnli_rows(path, language)) for split, path in paths.items()}
    return text_data(found, False, NLI, to_predict=to_predict)


def _xnli_rows(path: str, language: str) -> list[Record]:
    header, *lines = (line.split("\t") for line in read_lines(path))
    rows = []
    for number, cells in enumerate(lines, 2):
        where = f"{path}:{number}"
        if len(cells) != len(header):
            raise ValueError(
                f"{where}: {len(cells)} columns, but the first line has {len(header)}; restore "
                "the tabs"
            )
        values = dict(zip(header, cells, strict=True))
        if values.get("language", language) != language:
            continue
        first, second = ("premise", "hypo") if "premise" in values else PAIR
        label = values.get("gold_label", values.get("label", ""))
        # The machine translations say "contradictory".
        label = "contradiction" if label == "contradictory" else label
        rows.append(Record(where, {"text": values[first], "pair": values[second], "label": label}))
    if not rows:
        raise ValueError(f"{path}: holds no row of the language {language}; choose another")
    return rows


def xnli_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads XNLI's development and test set in one language from `tfds:xnli`."""
    data, language = TfdsSplits(source, data_dir), name.removeprefix("xnli/")
    data.need("premise", "hypothesis", "label")
    names = data.class_names("label") or []
    found = {}
    for split in data.splits:
        rows = []
        for where, record in data.records(split):
            premise, hypothesis = (
                _translation(record[part], language, where) for part in ("premise", "hypothesis")
            )
            cells = {"text": premise, "pair": hypothesis, "label": names[record["label"]]}
            rows.append(Record(where, cells))
        found[split] = (f"{data.source} {split}", rows)
    result = text_data(found, False, NLI)
    return result._replace(notes=(*data.notes, *result.notes))


def _translation(value: Mapping[str, Any], language: str, where: str) -> str:
    """Returns one language of TFDS's `Translation`, or of its variable kind."""
    found = value
    if "translation" in value:
        found = dict(zip(value["language"], value["translation"], strict=True))
        found = {_plain(code): text for code, text in found.items()}
    if language not in found:
        raise ValueError(f"{where}: there is no text in {language}; choose another language")
    return _plain(found[language])


def _plain(text: str | bytes) -> str:
    return text.decode() if isinstance(text, bytes) else str(text)
