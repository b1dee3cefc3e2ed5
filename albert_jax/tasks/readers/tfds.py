"""Fine-tuning data from TFDS: for each family of tasks, (name, "tfds:NAME", data_dir) -> examples.

A data set that is missing is prepared first. It must have the features of TFDS's own data set for
the task. `classification` and `regression` accept any data set whose features are named like the
columns of `tables`, and keep its order of classes. `tfds:race` is both halves. A label of -1
(GLUE's test splits) means no label. Splits other than train, validation and test are skipped, and
`notes` says so.

All functions raise FileNotFoundError if TFDS has no such data set, and ValueError if it has no
random access or other features, or a record is malformed.

Source of features and splits: tensorflow_datasets 4.9.10, text/glue.py, datasets/squad,
datasets/race and text/conll2003.
"""

import re
from collections.abc import Callable
from typing import Any

from albert_jax.config.schema import TFDS_PREFIX
from albert_jax.data.tfds import TfdsSplits, in_order
from albert_jax.tasks.examples import TaskData
from albert_jax.tasks.readers.conll import Sentence, tagged_data, to_iob2
from albert_jax.tasks.readers.glue import GLUE_TASKS
from albert_jax.tasks.readers.race import LEVELS, read_passages
from albert_jax.tasks.readers.records import Record
from albert_jax.tasks.readers.squad import article_of, questions_of
from albert_jax.tasks.readers.tables import CLASS, PAIR, SCORE, TEXT, text_data

# Tasks whose texts have different names in TFDS and in the official files.
GLUE_FEATURES = {
    "mnli": ("premise", "hypothesis"),
    "ax": ("premise", "hypothesis"),
    "mrpc": ("sentence1", "sentence2"),
}
NO_LABEL = -1  # TFDS's label of a test record


def glue_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads a GLUE task."""
    data, task_name = TfdsSplits(source, data_dir), name.removeprefix("glue/")
    task = GLUE_TASKS[task_name]
    texts = GLUE_FEATURES.get(task_name, task.columns)
    data.need(*texts, "label", "idx")
    names = data.class_names("label") or []
    if sorted(names) != sorted(task.labels):
        raise ValueError(
            f"{data.source}: the classes are {', '.join(names) or 'scores'}, not those of "
            f"glue/{task_name} ({', '.join(task.labels) or 'scores'}); use the task's data set"
        )
    columns = [*zip(texts, ("text", "pair"), strict=False), ("label", "label")]
    rows = _rows(data, columns, _class_or_score(names))
    found = text_data(rows, not names, task.labels, blank=task_name == "qqp")
    return _with_notes(data, found)


def texts_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads texts or pairs with a class or a score, for `classification` and `regression`."""
    data, regression = TfdsSplits(source, data_dir), name == "regression"

    def pick(names: tuple[str, ...], fits: Callable[[str], bool], needed: bool) -> list[str]:
        there = [name for name in names if fits(name)]
        if len(there) > 1 or (needed and not there):
            raise ValueError(
                f"{data.source}: needs one feature {' or '.join(map(repr, names))} "
                f"(has: {', '.join(data.features)}); use another data set"
            )
        return there

    [text] = pick(TEXT, data.is_text, True)
    [label] = pick(SCORE if regression else CLASS, data.features.__contains__, True)
    columns = [(text, "text"), (label, "label")]
    columns += [(name, "pair") for name in pick(PAIR, data.is_text, False)]
    names = data.class_names(label)
    if regression and names:
        raise ValueError(
            f"{data.source}: feature {label!r} holds classes, not scores; use the task "
            "classification"
        )
    # In regression, -1 is a score like any other.
    plain = (lambda value: value) if regression else _class_or_score(names or [])
    found = text_data(_rows(data, columns, plain), regression, tuple(names) if names else None)
    return _with_notes(data, found)


def _with_notes(data: TfdsSplits, found: TaskData) -> TaskData:
    return found._replace(notes=(*data.notes, *found.notes))


def _class_or_score(names: list[str]) -> Callable[[Any], Any]:
    def plain(value: Any) -> Any:
        if value == NO_LABEL:
            return None
        return names[value] if names else value

    return plain


def _rows(
    data: TfdsSplits, columns: list[tuple[str, str]], plain: Callable[[Any], Any]
) -> dict[str, tuple[str, list[Record]]]:
    """Returns rows for `text_data`.

    Args:
      data: the data set.
      columns: feature -> the column it becomes.
      plain: label -> a class's name, a score or None.
    """
    found = {}
    for split in data.splits:
        rows = []
        for where, record in data.records(split):
            cells = {ours: record[theirs] for theirs, ours in columns}
            cells["label"] = plain(cells["label"])
            rows.append(Record(where, cells, str(record["idx"]) if "idx" in record else None))
        found[split] = (f"{data.source} {split}", rows)
    return found


def squad_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads SQuAD; under v1.1 every question must have an answer."""
    data, unanswerable = TfdsSplits(source, data_dir), name == "squad/v2.0"
    data.need("id", "context", "question", "answers")
    notes: list[str] = []
    splits = {
        split: questions_of(
            ((where, article_of(record)) for where, record in data.records(split)),
            f"{data.source} {split}",
            notes,
            unanswerable,
            split != "test",
        )
        for split in data.splits
    }
    return _with_notes(data, TaskData(splits, (), tuple(notes)))


def race_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads RACE or one of its halves."""
    level = name.partition("/")[2] or None
    match = re.fullmatch(rf"({TFDS_PREFIX}race)(?:/(\w+))?(:.*)?", source)
    base, half, version = match.groups() if match else (source, None, None)
    if level and half not in (None, level):
        raise ValueError(f"{source}: does not match the task {name}; use {TFDS_PREFIX}{name}")
    sets = {half: source}
    if match and half is None:
        sets = {one: f"{base}/{one}{version or ''}" for one in ([level] if level else LEVELS)}
    opened = {one: TfdsSplits(path, data_dir) for one, path in sets.items()}
    notes = [note for data in opened.values() for note in data.notes]
    splits = {}
    for split in in_order({s for data in opened.values() for s in data.splits}):
        passages = []
        for one, data in opened.items():
            data.need("article", "questions", "options", "example_id")
            passages += [
                (where, one, record | {"id": record["example_id"]})
                for where, record in data.records(split)
            ]
        splits[split] = read_passages(passages, f"{source} {split}", level, split != "test", notes)
    return TaskData(splits, (), tuple(notes))


def conll_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads tagged sentences."""
    del name
    data = TfdsSplits(source, data_dir)
    data.need("tokens", "ner")
    names = data.class_names("ner")
    if names is None:
        raise ValueError(f"{data.source}: feature 'ner' holds no classes; use another data set")
    notes: list[str] = []
    found = {}
    for split in data.splits:
        sentences = []
        for i, (_, record) in enumerate(data.records(split)):
            words, tags = tuple(record["tokens"]), tuple(names[t] for t in record["ner"])
            # TFDS's last record of a split may hold no words: it only marks the end of the file.
            if words:
                sentences.append(Sentence(words, tags, (i,) * len(words)))
        path = f"{data.source} {split}"
        found[split] = (path, to_iob2(sentences, path, notes))
    return _with_notes(data, tagged_data(found)._replace(notes=tuple(notes)))
