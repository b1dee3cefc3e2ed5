"""Reader of named entities in columns, in any of the usual tagging schemes.

Source: https://www.clips.uantwerpen.be/conll2003/ner/: one word per line with its tag in the last
column, blank lines between sentences, -DOCSTART- between documents.
"""

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from albert_jax.data.text_files import name_without_compression
from albert_jax.tasks.examples import TaggedExample, TaskData
from albert_jax.tasks.readers.files import find_splits, read_lines, split_in_name, split_of_lone

DOCUMENT = "-DOCSTART-"
OUTSIDE = "O"
SENTENCE_END = "the sentence's end"
LOOKED_FOR = "eng.train, eng.testa, eng.testb, train.txt, valid.txt or dev.txt, test.txt, *.conll"
# The fraction of entities that may open differently from the rest: two of CoNLL-2003's own 23,499
# in eng.train have B- after O, in an IOB1 file. Their extent is unambiguous either way.
STRAY = 0.01
# The letters for the end of an entity and for a single-word entity, in schemes that have them.
CLOSING = ("ES", "LU")


class Sentence(NamedTuple):
    """A sentence as in its file.

    Attributes:
      words: the words.
      tags: one per word; empty if the file has none.
      lines: the line number of each word, for messages.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    lines: tuple[int, ...]


def read_conll(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads a task in columns.

    The tags may be IOB1, IOB2, IOBES (BIOES), BILOU, or plain types (IO). The scheme is inferred
    from each file as a whole, and all are converted to IOB2. The entity types are those of train,
    or of all files if there is no train. A test file may consist of words alone.

    Args:
      name: the task; all tasks have the same layout.
      source: a folder with the files of `LOOKED_FOR`, or one of them.
      to_predict: whether the sentences are to be predicted: a file may have any name, and no
        tags.

    Returns:
      The splits that exist. The labels are "O" and then B-X and I-X for each type X, sorted;
      none for words alone.

    Raises:
      FileNotFoundError: if the source or all of the files are missing.
      ValueError: if a file is malformed, mixes tagging schemes, or has a type that is not in
        train.
    """
    del name
    if to_predict and os.path.isfile(source):
        files = {split_of_lone(source): source}
    else:
        files = find_splits(source, _split_of, LOOKED_FOR, None)
    notes: list[str] = []
    found = {
        s: (path, to_iob2(read_columns(path, to_predict or s == "test"), path, notes))
        for s, path in files.items()
    }
    return tagged_data(found)._replace(notes=tuple(notes))


def _split_of(name: str) -> str | None:
    ending = name_without_compression(name).rpartition(".")[2]
    columns = {"train": "train", "testa": "validation", "testb": "test"}
    return columns.get(ending) or (split_in_name(name) if ending in ("txt", "conll") else None)


def read_columns(path: str, untagged: bool) -> list[Sentence]:
    """Returns the sentences of a file.

    Args:
      path: the file.
      untagged: whether it may consist of words alone.

    Raises:
      ValueError: if lines differ in their number of columns, or there is no tag or no sentence.
    """
    sentences: list[Sentence] = []
    rows: list[tuple[int, list[str]]] = []
    width = 0
    for number, line in enumerate([*read_lines(path), ""], 1):
        # Not split(), because words may contain other white space, such as a no-break space.
        row = re.split(r"[ \t]+", line.strip(" \t"))
        if row[0] not in ("", DOCUMENT):
            width = width or len(row)
            if len(row) != width:
                raise ValueError(
                    f"{path}:{number}: {len(row)} columns, but the file has {width}; "
                    "restore the word or the tag"
                )
            if width == 1 and not untagged:
                raise ValueError(f"{path}:{number}: no tag next to the word; give a tagged file")
            rows.append((number, row))
        elif rows:
            words = tuple(r[0] for _, r in rows)
            tags = tuple(r[-1] for _, r in rows) if width > 1 else ()
            sentences.append(Sentence(words, tags, tuple(n for n, _ in rows)))
            rows = []
    if not sentences:
        raise ValueError(f"{path}: contains no sentence; fetch the file again")
    return sentences


def to_iob2(sentences: Sequence[Sentence], path: str, notes: list[str]) -> list[Sentence]:
    """Returns sentences with their tags in IOB2: B- opens every entity, I- continues it.

    Args:
      sentences: all sentences of a file, in one tagging scheme.
      path: the file's name in messages.
      notes: receives a line if a few entities (see `STRAY`) open differently from the others.

    Raises:
      ValueError: if a tag is invalid, or the file fits no tagging scheme.
    """
    if types := _plain_types(sentences):
        notes.append(
            f"{path}: the tags are plain types ({', '.join(types)[:100]}); neighbouring words of "
            "one type are one entity"
        )
        sentences = [s._replace(tags=_with_inside(s.tags)) for s in sentences]
    first: dict[str, int] = {}
    for sentence in sentences:
        for tag, line in zip(sentence.tags, sentence.lines, strict=bool(sentence.tags)):
            letter = tag.partition("-")[0]
            if tag != OUTSIDE and not _is_schemed(tag):
                raise ValueError(
                    f"{path}:{line}: tag {tag!r} is neither O nor B-, I-, E-, S-, L- or U- plus a "
                    "type; are the tags in the last column?"
                )
            first.setdefault(letter, line)
    ways = [way for way in CLOSING if first.keys() & set(way)]
    if len(ways) == 2:
        marks = {letter: first[letter] for letter in "ESLU" if letter in first}
        listed = ", ".join(f"{letter}- (line {line})" for letter, line in marks.items())
        raise ValueError(f"{path}:{max(marks.values())}: mixes IOBES and BILOU: {listed}; use one")
    if ways:
        convert = _Closed(ways[0], path)
        return [s._replace(tags=convert(s)) for s in sentences]
    _check_open(sentences, path, notes)
    return [s._replace(tags=_open(s.tags)) for s in sentences]


def _is_schemed(tag: str) -> bool:
    """Whether a tag is a letter of a tagging scheme, a hyphen and a type."""
    letter, _, kind = tag.partition("-")
    return letter in tuple("BIESLU") and bool(kind)


def _plain_types(sentences: Sequence[Sentence]) -> list[str]:
    """Returns the tags, sorted, if they are types without a scheme such as PER; else none."""
    tags = {tag for s in sentences for tag in s.tags} - {OUTSIDE}
    return sorted(tags) if all(tag.replace("_", "").isalnum() for tag in tags) else []


def _with_inside(tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(tag if tag == OUTSIDE else f"I-{tag}" for tag in tags)


def _continues(tags: Sequence[str], i: int) -> bool:
    """Returns whether tag i follows a tag of its own type."""
    return i > 0 and tags[i - 1].partition("-")[1:] == tags[i].partition("-")[1:]


def _open(tags: Sequence[str]) -> tuple[str, ...]:
    """Returns IOB2 for IOB1 or IOB2: an entity opens unless it follows a tag of its type."""
    return tuple(
        "B" + tag[1:] if tag.startswith("I") and not _continues(tags, i) else tag
        for i, tag in enumerate(tags)
    )


def _check_open(sentences: Sequence[Sentence], path: str, notes: list[str]) -> None:
    """Checks that entities after O, or after another type, open in the same way throughout."""
    lines: dict[str, list[int]] = {"B": [], "I": []}
    for s in sentences:
        for i, tag in enumerate(s.tags):
            if tag != OUTSIDE and not _continues(s.tags, i):
                lines[tag[0]].append(s.lines[i])
    rare, usual = sorted(lines, key=lambda letter: len(lines[letter]))
    if not lines[rare]:
        return
    few = (
        f"{path}:{lines[rare][0]}: {len(lines[rare])} entities open with {rare}-, but "
        f"{len(lines[usual])} with {usual}- where none of their type precedes"
    )
    if len(lines[rare]) > STRAY * len(lines[usual]):
        raise ValueError(f"{few}: that is neither IOB1 nor IOB2; use one of them")
    notes.append(f"{few}; kept as they are")


class _Closed:
    """Turns IOBES or BILOU into IOB2."""

    def __init__(self, way: str, path: str):
        self._ends, self._alone = way
        self._path = path

    def __call__(self, s: Sentence) -> tuple[str, ...]:
        result = []
        open_type = ""
        for tag, line in [*zip(s.tags, s.lines, strict=True), (SENTENCE_END, s.lines[-1])]:
            letter, _, kind = tag.partition("-")
            goes_on = letter in ("I", self._ends)
            if goes_on != bool(open_type) or (goes_on and kind != open_type):
                state = f"the open {open_type} entity" if open_type else "no open entity"
                raise ValueError(
                    f"{self._path}:{line}: {tag} after {state}, in a file with "
                    f"{self._ends}- or {self._alone}- tags; correct the entity's tags"
                )
            result.append(tag if not kind else ("I-" if goes_on else "B-") + kind)
            open_type = kind if letter in ("B", "I") else ""
        return tuple(result[:-1])


def tagged_data(found: dict[str, tuple[str, list[Sentence]]]) -> TaskData:
    """Returns the examples of sentences in IOB2.

    Args:
      found: for each split, in order, its name in messages and its sentences.

    Raises:
      ValueError: if there is no entity at all, or a type that is not in train.
    """
    known = [found["train"]] if "train" in found else list(found.values())
    types = sorted({t[2:] for _, ss in known for s in ss for t in s.tags if t != OUTSIDE})
    if not types and any(s.tags for _, ss in known for s in ss):
        raise ValueError(
            f"{known[0][0]}: contains no entity; give a tagged file, ideally the train file"
        )
    labels = (OUTSIDE, *(f"{letter}-{kind}" for kind in types for letter in "BI")) if types else ()
    ids = {label: i for i, label in enumerate(labels)}
    splits: dict[str, list[TaggedExample]] = {}
    for split, (path, sentences) in found.items():
        examples = splits[split] = []
        for number, s in enumerate(sentences):
            for tag, line in zip(s.tags, s.lines, strict=bool(s.tags)):
                if tag not in ids:
                    raise ValueError(
                        f"{path}:{line}: type {tag[2:]!r} is not in train "
                        f"({', '.join(types)}); correct it"
                    )
            tags = tuple(ids[tag] for tag in s.tags) or None
            examples.append(TaggedExample(str(number), s.words, tags))
    return TaskData(splits, labels)
