"""Task examples as rows of ids: pairs cut to length, windows over long contexts, word labels.

A row is a dict of arrays. Those named in `SEQUENCES` run along the pieces (their last axis) and
are padded when rows are put together; the others are one value a row.
"""

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from albert_jax.data.examples import (
    NOT_FOUND,
    Answer,
    ChoiceExample,
    QuestionExample,
    TaggedExample,
    TextExample,
)
from albert_jax.tokenizer import CLS, SEP, UNK, Tokenizer

Row = dict[str, np.ndarray]

NONE = -1  # of a piece that has no tag, begins no word, or is not of the context

# Arrays along the pieces, and what stands on padding.
SEQUENCES = {
    "input_ids": 0,
    "token_type_ids": 0,
    "attention_mask": 0,
    "tags": NONE,  # of the word that begins at the piece
    "words": NONE,  # its number
    "begins": NONE,  # the characters of the context that the piece stands for
    "ends": NONE,
}


class Features(NamedTuple):
    """Rows, the example that each is of, and what had to be cut.

    Attributes:
      rows: one or more for an example.
      owners: int64[len(rows)], positions in the examples.
      notes: counts of what could not be used whole, for the log.
    """

    rows: list[Row]
    owners: np.ndarray
    notes: dict[str, int]


def join(first: Sequence[int], second: Sequence[int], max_length: int) -> tuple[Row, bool]:
    """`[CLS] first [SEP] second [SEP]` as a row, and whether pieces were cut to make it fit.

    The longer of the two loses its last piece until both fit. An empty second is left out.

    Raises:
      ValueError: there is no room for a piece of each.
    """
    first, second = list(first), list(second)
    room, least = max_length - (3 if second else 2), bool(first) + bool(second)
    if room < least:
        raise ValueError(
            f"task.max_length={max_length} leaves no room for a piece of each text; make it at "
            f"least {max_length - room + least}"
        )
    is_cut = len(first) + len(second) > room
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    ids = [CLS, *first, SEP, *([*second, SEP] if second else [])]
    types = [0] * (len(first) + 2)
    types += [1] * (len(ids) - len(types))
    row = {"input_ids": ids, "token_type_ids": types, "attention_mask": [1] * len(ids)}
    return {name: np.array(values, np.int32) for name, values in row.items()}, is_cut


def text_features(
    examples: Sequence[TextExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """A row a text or pair; `label` is its class (int32) or score (float32), if it has one."""
    texts = tokenizer.encode_batch([e.text for e in examples])
    pairs = tokenizer.encode_batch([e.pair or "" for e in examples])
    rows, cut = [], 0
    for example, text, pair in zip(examples, texts, pairs, strict=True):
        row, is_cut = join(text, pair, max_length)
        cut += is_cut
        if example.label is not None:
            kind = np.float32 if isinstance(example.label, float) else np.int32
            row["label"] = np.array(example.label, kind)
        rows.append(row)
    return Features(rows, np.arange(len(rows)), {"texts cut": cut})


def choice_features(
    examples: Sequence[ChoiceExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """A row a question: [options, pieces] of `[CLS] context [SEP] question option [SEP]`.

    The context loses what does not fit: the question and the option are what sets the four
    apart. Where those alone do not fit, their last pieces stay, as options come last. An option
    fills every gap "_" of its question, where it has some.

    Source: google-research/albert race_utils.py.
    """
    contexts = tokenizer.encode_batch([e.context for e in examples])
    rows, contexts_cut, options_cut = [], 0, 0
    for example, context in zip(examples, contexts, strict=True):
        endings = [_ending(example.question, option) for option in example.options]
        parts, is_cut = [], False
        for ending in tokenizer.encode_batch(endings):
            kept = ending[-max(max_length - 3 - bool(context), 1) :]
            room = max(max_length - 3 - len(kept), 0)
            options_cut += len(kept) < len(ending)
            is_cut |= len(context) > room
            parts.append(join(context[:room], kept, max_length)[0])
        contexts_cut += is_cut
        row = {name: stack([part[name] for part in parts], name) for name in parts[0]}
        if example.label is not None:
            row["label"] = np.array(example.label, np.int32)
        rows.append(row)
    notes = {"contexts cut": contexts_cut, "options cut": options_cut}
    return Features(rows, np.arange(len(rows)), notes)


def _ending(question: str, option: str) -> str:
    """The question with the option in its gaps, kept from growing together with a word there."""

    def fill(gap: re.Match[str]) -> str:
        before, after = question[: gap.start()][-1:], question[gap.end() :][:1]
        return " " * before.isalnum() + option + " " * after.isalnum()

    return re.sub("_+", fill, question) if "_" in question else f"{question} {option}"


def tag_features(
    examples: Sequence[TaggedExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """A row a sentence, or several where it is too long; every word is in exactly one row.

    `words` has the number of a word at its first piece, and `tags` its tag, if it has one;
    a word of no piece, as of control characters alone, is one unknown piece. Of a word that is
    longer than a row the first pieces stay.
    """
    rows, owners, split, cut = [], [], 0, 0
    for i, example in enumerate(examples):
        pieces = [ids or [UNK] for ids in tokenizer.encode_batch(list(example.words))]
        parts = list(_split_words(pieces, max_length - 2)) if pieces else []
        split += len(parts) > 1
        for part in parts:
            row, is_cut = join([p for w in part for p in pieces[w]], [], max_length)
            cut += is_cut
            starts = np.cumsum([1, *(len(pieces[w]) for w in part)])[:-1]
            words, tags = np.full((2, len(row["input_ids"])), NONE, np.int32)
            words[starts] = part
            if example.tags is not None:
                tags[starts] = np.array(example.tags, np.int32)[part]
            rows.append(row | {"words": words, "tags": tags})
            owners.append(i)
    notes = {"sentences split": split, "words cut": cut}
    return Features(rows, np.array(owners, np.int64), notes)


def _split_words(pieces: Sequence[Sequence[int]], room: int) -> Iterator[list[int]]:
    """Yields runs of word indices whose pieces fit; a word that alone does not is cut later."""
    part, used = [], 0
    for word, ids in enumerate(pieces):
        if part and used + len(ids) > room:
            yield part
            part, used = [], 0
        part.append(word)
        used += len(ids)
    yield part


def question_features(
    examples: Sequence[QuestionExample],
    tokenizer: Tokenizer,
    max_length: int,
    stride: int,
    max_question: int,
) -> Features:
    """Rows `[CLS] question [SEP] part of the context [SEP]` that overlap over a long context.

    `begins` and `ends` are the characters of the context that a piece stands for; a piece of
    white space alone has none, as it is no end of an answer. `start` and
    `end` are the slots of the first and the last piece of the first answer that has a place;
    both are 0, [CLS], where it is not wholly in the row or there is none.

    Raises:
      ValueError: a question leaves no room for a piece of its context.

    Source: google-research/albert squad_utils.py, convert_examples_to_features.
    """
    rows, owners, cut, lost = [], [], 0, 0
    encode = functools.lru_cache(maxsize=1)(tokenizer.encode_with_offsets)  # questions share one
    questions = tokenizer.encode_batch([e.question for e in examples])
    for i, (example, question) in enumerate(zip(examples, questions, strict=True)):
        cut += len(question) > max_question
        question = question[:max_question]
        room = max_length - 3 - len(question)
        if room < 1:
            raise ValueError(
                f"task.max_length={max_length} leaves no room for a context beside question "
                f"{example.id!r} of {len(question)} pieces; make it larger than "
                f"task.max_question={max_question} + 3"
            )
        ids, offsets = encode(example.context)
        places = np.array(
            [o if example.context[slice(*o)].strip() else (NONE, NONE) for o in offsets], np.int32
        )
        places = places.reshape(-1, 2).T
        answer = _locate(example.answers, *places)
        lost += bool(example.answers) and answer is None
        for first in _window_starts(len(ids), room, stride):
            row, _ = join(question, ids[first : first + room], max_length)
            part, slot = places[:, first : first + room], len(question) + 2
            begins, ends = np.full((2, len(row["input_ids"])), NONE, np.int32)
            begins[slot:-1], ends[slot:-1] = part
            start, end = _slots(answer, range(first, first + room), slot)
            row |= {"begins": begins, "ends": ends}
            row |= {"start": np.array(start, np.int32), "end": np.array(end, np.int32)}
            rows.append(row)
            owners.append(i)
    notes = {"questions cut": cut, "answers not found": lost}
    return Features(rows, np.array(owners, np.int64), notes)


def _window_starts(length: int, room: int, stride: int) -> range:
    """Where windows of `room` pieces begin, every `stride`, the last one reaching the end."""
    step = min(stride, room)  # a longer one would pass over what lies between two windows
    return range(0, max(length - room + step, 1), step)


def _locate(
    answers: Sequence[Answer], begins: np.ndarray, ends: np.ndarray
) -> tuple[int, int] | None:
    """The first and the last of a context's pieces that have a character of the answer."""
    for answer in answers:
        if answer.start != NOT_FOUND:
            inside = (begins < answer.start + len(answer.text)) & (ends > answer.start)
            pieces = np.flatnonzero(inside)
            return (int(pieces[0]), int(pieces[-1])) if pieces.size else None
    return None


def _slots(answer: tuple[int, int] | None, window: range, slot: int) -> tuple[int, int]:
    """Slots of an answer's ends in the row of a window that begins at `slot`, or (0, 0)."""
    if answer is None or answer[0] not in window or answer[1] not in window:
        return 0, 0
    return slot + window.index(answer[0]), slot + window.index(answer[1])


def stack(arrays: Sequence[np.ndarray], name: str, width: int | None = None) -> np.ndarray:
    """Arrays of one kind in one, those along the pieces padded to `width` or to the longest."""
    if name not in SEQUENCES:
        return np.stack(arrays)
    longest = max(a.shape[-1] for a in arrays) if width is None else width
    shape = (len(arrays), *arrays[0].shape[:-1], longest)
    stacked = np.full(shape, SEQUENCES[name], arrays[0].dtype)
    for into, array in zip(stacked, arrays, strict=True):
        into[..., : array.shape[-1]] = array
    return stacked


def length_of(row: Row) -> int:
    """Slots that a row needs."""
    return row["input_ids"].shape[-1]


def total_notes(features: Sequence[Features]) -> dict[str, int]:
    """Sums of the notes, without what did not occur."""
    names = dict.fromkeys(itertools.chain.from_iterable(f.notes for f in features))
    sums = {name: sum(f.notes.get(name, 0) for f in features) for name in names}
    return {name: count for name, count in sums.items() if count}
