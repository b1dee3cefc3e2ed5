"""Reader of parallel texts: files of lines, one per language, tables of pairs, or TFDS.

A task is named after its direction, such as `translation/en-de`.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from albert_jax.data.text_files import name_without_compression
from albert_jax.data.tfds import TfdsSplits, in_order
from albert_jax.tasks.examples import PairExample, TaskData
from albert_jax.tasks.readers.files import read_text, split_in_name, split_of_lone
from albert_jax.tasks.readers.records import SUFFIXES, read_rows, suffix_of

TASK = re.compile(r"translation/([a-z]{2,3}(?:_[A-Za-z]+)?)-([a-z]{2,3}(?:_[A-Za-z]+)?)")
_HUGGING_FACE = "translation"  # the key under which its data sets keep both texts


class Pair(NamedTuple):
    """A sentence with its translation, if there is one, and its place for messages."""

    where: str
    source: str
    target: str | None


class Found(NamedTuple):
    """The pairs of a split, the name of what they are from, and whether all need both sides."""

    name: str
    pairs: list[Pair]
    are_complete: bool


def languages_of(name: str) -> tuple[str, str]:
    """Returns the source and the target language of a task, as its name has them.

    Raises:
      ValueError: if the name is not `translation/SOURCE-TARGET`.
    """
    match = TASK.fullmatch(name)
    if not match:
        raise ValueError(
            f"config.task.name={name!r} must be translation/SOURCE-TARGET with two language "
            "codes, such as translation/en-de"
        )
    return match[1], match[2]


def read_parallel(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads sentences and their translations.

    Args:
      name: `translation/SOURCE-TARGET`.
      source: a folder with a file of lines per split and language (`train.en` and `train.de`), or
        with tables (`train.tsv`, `.csv`, `.jsonl`, `.json`, `.parquet`) whose columns are the
        language codes, if need be within `translation`; or one such table; or one file of lines
        in the source language, to be predicted. `val`, `dev` and `test_2016.en` are understood.
      to_predict: whether the sentences are to be translated. Then nothing needs a translation,
        and blank lines are kept.

    Returns:
      The splits that exist. Pairs of which a side is blank are left out of `train` and counted
      in `notes`. A test split needs no translations.

    Raises:
      FileNotFoundError: if the source or all of its files are missing.
      ValueError: if the two files of a split have different numbers of lines, a file is
        malformed, or a side of a pair is blank where it is needed.
    """
    languages = languages_of(name)
    if os.path.isfile(source):
        split = split_in_name(os.path.basename(source)) or "train"
        split = split_of_lone(source) if to_predict else split
        found = {split: _read_file(source, languages, to_predict or split == "test")}
    elif os.path.isdir(source):
        found = _read_folder(source, languages, to_predict)
    else:
        raise FileNotFoundError(f"{source}: no such file or folder")
    return _task_data(found, to_predict)


def parallel_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads a TFDS data set with a text feature for each language, such as `wmt14_translate`.

    Pairs with a blank side are left out of every split but `test`.
    """
    languages, data = languages_of(name), TfdsSplits(source, data_dir)
    data.need(*languages)
    found = {}
    for split in data.splits:
        pairs = [_pair(record, languages, where, True) for where, record in data.records(split)]
        whole = pairs if split == "test" else [pair for pair in pairs if not _blank_side(pair)]
        found[split] = Found(f"{data.source} {split}", whole, False)
        if len(whole) < len(pairs):
            note = f"{len(pairs) - len(whole):,} pairs left out: a side is blank"
            data.notes.append(f"{data.source} {split}: {note}")
    read = _task_data(found, False)
    return read._replace(notes=(*data.notes, *read.notes))


def _read_file(path: str, languages: tuple[str, str], to_predict: bool) -> Found:
    """Returns the pairs of a table, or the lines of a text in the source language."""
    if suffix_of(path) in SUFFIXES:
        rows = read_rows(path, [])
        pairs = [_pair(row.cells, languages, row.where, not to_predict) for row in rows]
        return Found(path, pairs, not to_predict)
    own = _ending(path)
    other = languages[1] if own == languages[0] else languages[0]
    beside = _with_ending(path, own, other)
    if own in languages and os.path.isfile(beside):
        first, second = (path, beside) if own == languages[0] else (beside, path)
        return Found(first, _line_pairs(first, second), not to_predict)
    if not to_predict:
        raise ValueError(
            f"{path}: translations are missing; name the two files alike, with the endings "
            f".{languages[0]} and .{languages[1]}, or give a table ({', '.join(SUFFIXES)})"
        )
    if own == languages[1]:
        raise ValueError(
            f"{path}: the ending says {own}, but the model translates from {languages[0]}; rename "
            "the file if its text is in that language"
        )
    return Found(
        path, [Pair(f"{path}:{i}", t, None) for i, t in enumerate(_lines(path), 1)], False
    )


def _ending(path: str) -> str:
    """Returns the end of a file's name that may be its language, whatever its compression."""
    return os.path.splitext(name_without_compression(path))[1].removeprefix(".")


def _with_ending(path: str, own: str, other: str) -> str:
    plain = name_without_compression(path)
    return plain.removesuffix(own) + other + path.removeprefix(plain)


def _read_folder(folder: str, languages: tuple[str, str], to_predict: bool) -> dict[str, Found]:
    """Returns the pairs of every split; a test split is called by its file's whole name."""
    found: dict[str, Found] = {}
    for name in sorted(os.listdir(folder)):
        path, split = os.path.join(folder, name), split_in_name(name)
        is_table = suffix_of(name) in SUFFIXES
        if split is None or not os.path.isfile(path):
            continue
        if not is_table and _ending(name) != languages[0]:
            continue
        is_test = split == "test"
        if is_test:
            split = os.path.splitext(name_without_compression(name))[0]
        if split in found:
            raise ValueError(
                f"{folder}: both {os.path.basename(found[split].name)} and {name} would be "
                f"{split}; keep one"
            )
        found[split] = _read_file(path, languages, to_predict or is_test)
    if not found:
        raise FileNotFoundError(
            f"{folder}: holds neither train.{languages[0]} and train.{languages[1]} nor train.tsv "
            "and the like"
        )
    tests = sorted(split for split in found if split.startswith("test"))
    return {split: found[split] for split in [*in_order(found.keys() - {*tests}), *tests]}


def _lines(path: str) -> list[str]:
    """Returns every line of a file, blank ones too; only LF and CR LF end a line."""
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    return lines[:-1] if not lines[-1] else lines


def _line_pairs(first: str, second: str) -> list[Pair]:
    sources, targets = _lines(first), _lines(second)
    if len(sources) != len(targets):
        raise ValueError(
            f"{first} has {len(sources):,} lines, but {second} {len(targets):,}: line n of one "
            "must translate line n of the other; align them"
        )
    both = enumerate(zip(sources, targets, strict=True), 1)
    return [Pair(f"{first}:{i}", source, target) for i, (source, target) in both]


def _pair(
    cells: Mapping[str, Any], languages: tuple[str, str], where: str, needs_both: bool
) -> Pair:
    inner = cells.get(_HUGGING_FACE)
    cells = inner if isinstance(inner, Mapping) else cells
    texts = [cells.get(language) for language in languages]
    for language, text in zip(languages, texts if needs_both else texts[:1], strict=False):
        if not isinstance(text, str):
            raise ValueError(
                f"{where}: no text under {language!r} (has: {', '.join(map(str, cells))[:200]}); "
                "name the columns after the languages of the task"
            )
    source, target = texts
    return Pair(where, str(source), target if isinstance(target, str) else None)


def _blank_side(pair: Pair) -> bool:
    return not pair.source.strip() or not (pair.target or "").strip()


def _task_data(found: Mapping[str, Found], to_predict: bool) -> TaskData:
    splits, notes = {}, []
    for split, (name, pairs, are_complete) in found.items():
        blank = [pair for pair in pairs if are_complete and _blank_side(pair)]
        if blank and split != "train":
            raise ValueError(
                f"{blank[0].where}: a side is blank; fill it in or drop the pair from both"
            )
        if blank:
            notes.append(f"{name}: {len(blank):,} pairs left out: a side is blank")
        examples = [
            PairExample(str(i), _one_line(source), None if target is None else _one_line(target))
            for i, (_, source, target) in enumerate(pairs)
            if not (are_complete and _blank_side(pairs[i]))
        ]
        if not examples:
            raise ValueError(f"{name}: holds no pair of sentences; add some or remove the file")
        missing = sum(example.target is None for example in examples)
        if to_predict and 0 < missing < len(examples):
            notes.append(
                f"{name}: {missing:,} of {len(examples):,} have no translation; no scores"
            )
        splits[split] = examples
    return TaskData(splits, (), tuple(notes))


def _one_line(text: str) -> str:
    """Returns the text on one line, as translations are written."""
    return text.replace("\n", " ").replace("\r", " ")
