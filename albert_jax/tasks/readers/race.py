"""Reader of RACE: reading comprehension with several options per question.

Source: https://www.cs.cmu.edu/~glai1/data/race/: train|dev|test/middle|high/*.txt, each a JSON
object with `id`, `article`, `questions`, `options` (four per question) and `answers` (a letter
per question). Other data in this layout may have any number of options, the same in a file.
Also reads the same objects one per line, as train*.jsonl, dev*.jsonl, test*.jsonl.
"""

import os
import re
import string
from collections.abc import Iterable
from typing import Any

from albert_jax.data.files import parse_json
from albert_jax.data.tfds import WORDS, in_order
from albert_jax.tasks.examples import ChoiceExample, TaskData
from albert_jax.tasks.readers.files import (
    find_splits,
    read_lines,
    read_text,
    split_in_name,
    split_of_lone,
)
from albert_jax.tasks.readers.records import suffix_of

LETTERS = string.ascii_uppercase
LEVELS = ("middle", "high")
LOOKED_FOR = "train|dev|test/middle|high/*.txt, train*.jsonl, dev*.jsonl, test*.jsonl"

# For each passage: its place, middle or high (None: its id may show it), and its JSON value.
Passages = Iterable[tuple[str, str | None, Any]]


def read_race(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads RACE, or one of its halves.

    Args:
      name: "race", or "race/middle" or "race/high"; the half is found by folder, or by how an id
        starts.
      source: the folder with the official folders (or with RACE, which has them) or with JSONL
        files, or one JSONL file.
      to_predict: whether the questions are to be predicted and need no answers.

    Returns:
      The splits that exist; `notes` counts blank questions and options, which are kept.

    Raises:
      FileNotFoundError: if the source, all splits in it or the wanted half of one are missing.
      ValueError: if a file is malformed, or its ids do not distinguish middle from high.
    """
    level = name.partition("/")[2] or None
    notes: list[str] = []
    found = {
        split: read_passages(passages, path, level, not (to_predict or split == "test"), notes)
        for split, (path, passages) in _find_passages(source, level, to_predict).items()
    }
    order = in_order(found) if len(found) > 1 else list(found)
    return TaskData({split: found[split] for split in order}, (), tuple(notes))


def _find_passages(
    source: str, level: str | None, to_predict: bool
) -> dict[str, tuple[str, Passages]]:
    """Returns for each split the folder or file and its passages."""
    if to_predict and os.path.isfile(source):
        return {split_of_lone(source): (source, _in_jsonl(source))}
    for top in (source, os.path.join(source, "RACE")):
        folders = {
            WORDS[word]: os.path.join(top, word)
            for word in ("train", "dev", "test")
            if any(os.path.isdir(os.path.join(top, word, one)) for one in LEVELS)
        }
        if folders:
            return {s: (path, _in_folder(path, level)) for s, path in folders.items()}
    files = find_splits(
        source,
        lambda n: split_in_name(n) if suffix_of(n) == ".jsonl" else None,
        LOOKED_FOR,
        None,
    )
    return {s: (path, _in_jsonl(path)) for s, path in files.items()}


def _in_folder(path: str, level: str | None) -> Passages:
    for one in LEVELS if level is None else (level,):
        folder = os.path.join(path, one)
        files = (
            [n for n in os.listdir(folder) if n.endswith(".txt")] if os.path.isdir(folder) else []
        )
        if not files:
            raise FileNotFoundError(f"{folder}: no folder with *.txt files; is RACE complete?")
        # By number: 2.txt before 10.txt.
        for file in sorted(files, key=lambda n: (len(n), n)):
            at = os.path.join(folder, file)
            yield at, one, parse_json(read_text(at), at)


def _in_jsonl(path: str) -> Passages:
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            yield f"{path}:{number}", None, parse_json(line, path, number)


def read_passages(
    passages: Passages, path: str, level: str | None, answered: bool, notes: list[str]
) -> list[ChoiceExample]:
    """Returns every question of these passages.

    Args:
      passages: see `Passages`.
      path: the name of their source in messages.
      level: "middle" or "high" to take only that half; None takes all.
      answered: whether there must be answers.
      notes: receives a line for each kind of oddity.

    Raises:
      ValueError: if a passage is malformed.
    """
    examples: list[ChoiceExample] = []
    seen: dict[str, str] = {}
    blank = 0
    for where, half, passage in passages:
        identity = _string(passage, "id", where)
        where = f"{where}: passage {identity}"
        if seen.setdefault(identity, where) != where:
            raise ValueError(f"{where}: the id is repeated from {seen[identity]}; drop one")
        if level is not None and (half or _level(identity, where)) != level:
            continue
        new = _questions(passage, identity, where, answered)
        for example in new:
            if len(example.options) != len((examples or new)[0].options):
                raise ValueError(
                    f"{where}: question {example.id} has {len(example.options)} options, but the "
                    f"first question {len((examples or new)[0].options)}; drop one of the two, or "
                    "give them the same number"
                )
        blank += sum(not text.strip() for e in new for text in (e.question, *e.options))
        examples += new
    if not examples:
        raise ValueError(f"{path}: contains no race/{level} passage; give other files")
    if blank:
        notes.append(f"{path}: kept {blank} questions or options without text")
    return examples


def _string(passage: Any, key: str, where: str) -> str:
    value = passage.get(key) if isinstance(passage, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key!r} must be a string; is this RACE's layout?")
    return value


def _level(identity: str, where: str) -> str:
    found = re.match("middle|high", identity)
    if found is None:
        raise ValueError(
            f"{where}: the id starts with neither middle nor high, so the file cannot be split; "
            "use the task race"
        )
    return found[0]


def _list(passage: dict, key: str, count: int | None, where: str) -> list:
    value = passage.get(key)
    if not isinstance(value, list) or not value or count not in (None, len(value)):
        number = "a list" if count is None else f"a list of {count}"
        raise ValueError(f"{where}: {key!r} must be {number}; is this RACE's layout?")
    return value


def _questions(passage: dict, identity: str, where: str, answered: bool) -> list[ChoiceExample]:
    """Returns the questions of one passage."""
    article = _string(passage, "article", where)
    questions = _list(passage, "questions", None, where)
    options = _list(passage, "options", len(questions), where)
    answers = [None] * len(questions)
    if answered or "answers" in passage:
        answers = _list(passage, "answers", len(questions), where)
    examples = []
    for number, (question, texts, letter) in enumerate(
        zip(questions, options, answers, strict=True)
    ):
        at = f"{where}, question {number}"
        if not isinstance(question, str):
            raise ValueError(f"{at}: must be a string; is this RACE's layout?")
        if (
            not isinstance(texts, list)
            or not 2 <= len(texts) <= len(LETTERS)
            or not all(isinstance(text, str) for text in texts)
        ):
            raise ValueError(
                f"{at}: must have from 2 to {len(LETTERS)} options, each a string; correct it or "
                "drop it"
            )
        known = tuple(LETTERS[: len(texts)])
        if letter is not None and letter not in known:
            raise ValueError(
                f"{at}: answer {letter!r} must be one of {', '.join(known)}; correct it"
            )
        label = None if letter is None else LETTERS.index(letter)
        name = f"{identity}-{number}"
        examples.append(ChoiceExample(name, article, question, tuple(texts), label))
    return examples
