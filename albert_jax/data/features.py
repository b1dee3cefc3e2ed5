"""Task examples as rows of ids: pairs cut to length, windows over long contexts, word labels.

A row is a dict of arrays. Those named in `SEQUENCES` run along the pieces (their last axis) and
are padded when rows are put together; the others are one value a row.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from albert_jax.data.examples import (
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
    """
    first, second = list(first), list(second)
    room = max_length - (3 if second else 2)
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
    apart. An option fills the gap "_" of its question, where it has one.

    Source: google-research/albert race_utils.py.
    """
    contexts = tokenizer.encode_batch([e.context for e in examples])
    rows, cut = [], 0
    for example, context in zip(examples, contexts, strict=True):
        endings = [
            example.question.replace("_", f" {option} ", 1)
            if "_" in example.question
            else f"{example.question} {option}"
            for option in example.options
        ]
        parts = []
        for ending in tokenizer.encode_batch(endings):
            ending = ending[: max_length - 3 - 1]
            room = max_length - 3 - len(ending)
            cut += len(context) > room
            parts.append(join(context[:room], ending, max_length)[0])
        row = {name: stack([part[name] for part in parts], name) for name in parts[0]}
        if example.label is not None:
            row["label"] = np.array(example.label, np.int32)
        rows.append(row)
    return Features(rows, np.arange(len(rows)), {"contexts cut": cut})


def tag_features(
    examples: Sequence[TaggedExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """A row a sentence, or several where it is too long; every word is in exactly one row.

    `words` has the number of a word at its first piece, and `tags` its tag, if it has one;
    a word of no piece that the vocabulary knows is one unknown piece.
    """
    rows, owners, split = [], [], 0
    for i, example in enumerate(examples):
        pieces = [ids or [UNK] for ids in tokenizer.encode_batch(list(example.words))]
        parts = list(_split_words(pieces, max_length - 2)) if pieces else []
        split += len(parts) > 1
        for part in parts:
            row, _ = join([p for w in part for p in pieces[w]], [], max_length)
            starts = np.cumsum([1, *(len(pieces[w]) for w in part)])[:-1]
            words, tags = np.full((2, len(row["input_ids"])), NONE, np.int32)
            words[starts] = part
            if example.tags is not None:
                tags[starts] = np.array(example.tags, np.int32)[part]
            rows.append(row | {"words": words, "tags": tags})
            owners.append(i)
    return Features(rows, np.array(owners, np.int64), {"sentences split": split})


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

    `begins` and `ends` are the characters of the context that a piece stands for. `start` and
    `end` are the slots of the first answer's first and last piece; both are 0, [CLS], where
    the answer is not wholly in the row or there is none.

    Source: google-research/albert squad_utils.py, convert_examples_to_features.
    """
    rows, owners, cut = [], [], 0
    for i, example in enumerate(examples):
        question = tokenizer.encode(example.question)
        cut += len(question) > max_question
        question = question[:max_question]
        ids, offsets = tokenizer.encode_with_offsets(example.context)
        room = max_length - 3 - len(question)
        for first in _window_starts(len(ids), room, stride):
            row, _ = join(question, ids[first : first + room], max_length)
            places = np.full((2, len(row["input_ids"])), NONE, np.int32)
            slot = len(question) + 2
            part = np.array(offsets[first : first + room], np.int32).reshape(-1, 2)
            places[:, slot : slot + len(part)] = part.T
            start, end = _locate(example, *places)
            row |= {"begins": places[0], "ends": places[1]}
            row |= {"start": np.array(start, np.int32), "end": np.array(end, np.int32)}
            rows.append(row)
            owners.append(i)
    return Features(rows, np.array(owners, np.int64), {"questions cut": cut})


def _window_starts(length: int, room: int, stride: int) -> range:
    """Where windows of `room` pieces begin, every `stride`, the last one reaching the end."""
    return range(0, max(length - room + stride, 1), stride)


def _locate(example: QuestionExample, begins: np.ndarray, ends: np.ndarray) -> tuple[int, int]:
    """Slots of the first and the last piece of the first answer, or (0, 0)."""
    if not example.answers:
        return 0, 0
    first = example.answers[0].start
    last = first + len(example.answers[0].text)
    inside = np.flatnonzero((begins < last) & (ends > first) & (begins != NONE))
    context = np.flatnonzero(begins != NONE)
    if not inside.size or first < begins[context[0]] or last > ends[context[-1]]:
        return 0, 0
    return int(inside[0]), int(inside[-1])


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
