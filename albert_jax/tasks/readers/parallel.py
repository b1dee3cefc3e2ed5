"""Reader of parallel texts: files of lines, one per language, tables of pairs, or TFDS.

A task is named after its direction, such as `translation/en-de`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from albert_jax.data.text_files import name_without_compression
from albert_jax.data.tfds import TfdsSplits, in_order
from albert_jax.tasks.examples import PairExample, TaskData
from albert_jax.tasks.readers.files import read_text, split_in_name, split_of_lone
from albert_jax.tasks.readers.records import SUFFIXES, read_rows, suffix_of

TASK = re.compile(r"translation/([a-z]{2,3}(?:_[A-Za-z]+)?)-([a-z]{2,3}(?:_[A-Za-z]+)?)")
_HUGGING_FACE = "translation"  # the key under which its data sets keep both texts

Pair = tuple[str, str | None]


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
      in `notes`.

    Raises:
      FileNotFoundError: if the source or all of its files are missing.
      ValueError: if the two files of a split have different numbers of lines, a file is
        malformed, or a side of a pair is blank where it is needed.
    """
    languages = languages_of(name)
    if os.path.isfile(source):
        found = {_lone_split(source, to_predict): _file_pairs(source, languages, to_predict)}
    elif os.path.isdir(source):
        found = _folder_pairs(source, languages, to_predict)
    else:
        raise FileNotFoundError(f"{source}: no such file or folder")
    return _task_data(found, to_predict)


def parallel_from_tfds(name: str, source: str, data_dir: str | None) -> TaskData:
    """Reads a TFDS data set with a text feature for each language, such as `wmt14_translate`."""
    languages, data = languages_of(name), TfdsSplits(source, data_dir)
    data.need(*languages)
    found = {
        split: (
            f"{data.source} {split}",
            [_pair(record, languages, where, False) for where, record in data.records(split)],
        )
        for split in data.splits
    }
    read = _task_data(found, False)
    return read._replace(notes=(*data.notes, *read.notes))


def _lone_split(source: str, to_predict: bool) -> str:
    split = split_in_name(os.path.basename(source))
    return split_of_lone(source) if to_predict else split or "train"


def _file_pairs(path: str, languages: tuple[str, str], to_predict: bool) -> tuple[str, list[Pair]]:
    """Returns the pairs of a table, or the lines of a text in the source language."""
    if suffix_of(path) in SUFFIXES:
        return path, _table_pairs(path, languages, to_predict)
    own = suffix_of(path).removeprefix(".")
    other = languages[1] if own == languages[0] else languages[0]
    beside = _with_language(path, own, other)
    if own in languages and os.path.isfile(beside):
        first, second = (path, beside) if own == languages[0] else (beside, path)
        return first, _line_pairs(first, second)
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
    return path, [(line, None) for line in _lines(path)]


def _with_language(path: str, own: str, other: str) -> str:
    plain = name_without_compression(path)
    return plain.removesuffix(own) + other + path.removeprefix(plain)


def _folder_pairs(
    folder: str, languages: tuple[str, str], to_predict: bool
) -> dict[str, tuple[str, list[Pair]]]:
    """Returns the pairs of every split; those of several files of a split end on their name."""
    found: dict[str, tuple[str, list[Pair]]] = {}
    for name in sorted(os.listdir(folder)):
        path, suffix = os.path.join(folder, name), suffix_of(name)
        split = split_in_name(name)
        is_text = suffix == f".{languages[0]}"
        if split is None or not os.path.isfile(path) or not (is_text or suffix in SUFFIXES):
            continue
        if split in found and split != "test":
            raise ValueError(
                f"{folder}: both {os.path.basename(found[split][0])} and {name} would be {split}; "
                "keep one"
            )
        if split in found or (split == "test" and _stem(name) != "test"):
            split = _stem(name)
        found[split] = _file_pairs(path, languages, to_predict)
    if not found:
        raise FileNotFoundError(
            f"{folder}: holds neither train.{languages[0]} and train.{languages[1]} nor train.tsv "
            "and the like"
        )
    return {split: found[split] for split in _ordered(found)}


def _stem(name: str) -> str:
    return os.path.splitext(name_without_compression(name))[0]


def _ordered(found: Iterable[str]) -> list[str]:
    plain = in_order({split for split in found if not split.startswith("test")})
    return [*plain, *sorted(split for split in found if split.startswith("test"))]


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
    return list(zip(sources, targets, strict=True))


def _table_pairs(path: str, languages: tuple[str, str], to_predict: bool) -> list[Pair]:
    rows = read_rows(path, [])
    return [_pair(row.cells, languages, row.where, to_predict) for row in rows]


def _pair(
    cells: Mapping[str, Any], languages: tuple[str, str], where: str, to_predict: bool
) -> Pair:
    inner = cells.get(_HUGGING_FACE)
    cells = inner if isinstance(inner, Mapping) else cells
    texts = [cells.get(language) for language in languages]
    needed = texts[:1] if to_predict else texts
    for language, text in zip(languages, needed, strict=False):
        if not isinstance(text, str):
            raise ValueError(
                f"{where}: no text under {language!r} (has: {', '.join(map(str, cells))[:200]}); "
                "name the columns after the languages of the task"
            )
    source, target = texts
    return str(source), target if isinstance(target, str) else None


def _task_data(found: Mapping[str, tuple[str, list[Pair]]], to_predict: bool) -> TaskData:
    splits, notes = {}, []
    for split, (path, pairs) in found.items():
        blank = [
            i for i, pair in enumerate(pairs) if not all(text and text.strip() for text in pair)
        ]
        if blank and not to_predict and split != "train":
            raise ValueError(
                f"{path}: line {blank[0] + 1}: a side is blank; fill it in or drop the pair from "
                "both"
            )
        left_out = set() if to_predict else set(blank)
        if left_out:
            notes.append(f"{path}: {len(left_out):,} pairs left out: a side is blank")
        examples = [
            PairExample(str(i), _one_line(source), None if target is None else _one_line(target))
            for i, (source, target) in enumerate(pairs)
            if i not in left_out
        ]
        if not examples:
            raise ValueError(f"{path}: holds no pair of sentences; add some or remove the file")
        splits[split] = examples
    return TaskData(splits, (), tuple(notes))


def _one_line(text: str) -> str:
    """Returns the text on one line, as translations are written."""
    return text.replace("\n", " ").replace("\r", " ")
