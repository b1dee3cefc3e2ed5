"""From stored rows to model inputs: splits each chunk into two runs of sentences.

A chunk of whole sentences becomes [CLS] A [SEP] B [SEP]. For the sentence-order loss (`sop`) half
of the chunks have A and B swapped; for next-sentence prediction (`nsp`) half have B taken from
another document; with `none` a chunk stays whole, [CLS] A [SEP].

A chunk of one sentence has no B and does not contribute to the sentence loss. (The reference gives
it a B from another document and labels it swapped, which is next-sentence prediction in disguise.)

Source: arXiv:1909.11942, section 3.1; google-research/albert, create_pretraining_data.py.
"""

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from albert_jax.config.choices import one_of
from albert_jax.data.tokenizers import SpecialIds

StoredRow = Mapping[str, np.ndarray]


class RowSource(Protocol):
    """Rows by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> StoredRow: ...


SWAP_RATE = 0.5  # Source: arXiv:1909.11942, section 3.1
# How many rows to try for a B from another document before declaring the corpus too small.
MAX_TRIES = 1000


class SentenceRun(NamedTuple):
    """A run of sentences.

    Attributes:
      pieces: uint16[n] or uint32[n].
      sentence_starts: bool[n], True at the first piece of each sentence.
      word_starts: bool[n], True at the first piece of each word; None where the vocabulary tells.
    """

    pieces: np.ndarray
    sentence_starts: np.ndarray
    word_starts: np.ndarray | None = None


class Pair(NamedTuple):
    """A chunk split into segments.

    Attributes:
      a, b: the two segments; b is None in a chunk of one segment, which has no sentence loss.
      label: 1 if swapped (sop) or if b is from another document (nsp), else 0.
    """

    a: SentenceRun
    b: SentenceRun | None
    label: int


class Layout(NamedTuple):
    """Concatenated rows without padding.

    There are r rows with a total of n slots, m chunks and k pieces that are not special.

    Attributes:
      slots, chunks, pieces: int64[r], the numbers in each row.
      input_ids, token_type_ids, position_ids, segment_ids: int32[n]; segment_ids counts the
        chunks of a row from 1.
      cls_positions: int32[m], slots within the row.
      sentence_labels: int32[m].
      sentence_weights: float32[m].
      piece_slots: int64[k], ascending slots of the pieces, among those of all rows.
      piece_segments: int64[k], the segment of a piece: 2 * chunk + (0 for A, 1 for B), counting
        the chunks of all rows.
      sentence_starts: bool[k], True at the first piece of each sentence.
      word_starts: bool[k], True at the first piece of each word; None where the vocabulary tells.
    """

    slots: np.ndarray
    chunks: np.ndarray
    pieces: np.ndarray
    input_ids: np.ndarray
    token_type_ids: np.ndarray
    position_ids: np.ndarray
    segment_ids: np.ndarray
    cls_positions: np.ndarray
    sentence_labels: np.ndarray
    sentence_weights: np.ndarray
    piece_slots: np.ndarray
    piece_segments: np.ndarray
    sentence_starts: np.ndarray
    word_starts: np.ndarray | None = None


def choose_pairs(
    row: StoredRow, objective: str, rng: np.random.Generator, others: RowSource = ()
) -> list[Pair]:
    """Draws A and B of each chunk.

    Draws, in this order: a split point per chunk; a coin per chunk; then for `nsp`, for each chunk
    whose coin is 1, those of `_borrow`. `none` draws nothing.

    Args:
      row: one row as stored by `prepare`.
      objective: a name in `OBJECTIVES`.
      rng: this example's generator.
      others: the rows to borrow from; only for "nsp".

    Raises:
      ValueError: if the row's lengths are inconsistent, or "nsp" finds no second document.
    """
    bounds = _bounds(row)
    whole = _whole(row, bounds)
    sentences = row["chunk_sentences"].tolist()
    change = OBJECTIVES[one_of("data.sentence_objective", objective, OBJECTIVES)].change
    if change is None:
        splits = coins = [1.0] * len(sentences)
    else:
        splits, coins = rng.random((2, len(sentences))).tolist()
    pairs, first = [], 0
    for chunk, k in enumerate(sentences):
        start, end = bounds[first], bounds[first + k]
        # With one sentence, or no objective, the split is at the end, and there is no B.
        split = bounds[first + 1 + int(splits[chunk] * (k - 1))]
        first += k
        a, b = _cut(whole, start, split), _cut(whole, split, end)
        if split == end or change is None:
            pairs.append(Pair(a, None, 0))
        elif coins[chunk] >= SWAP_RATE:
            pairs.append(Pair(a, b, 0))
        else:
            document = int(row["chunk_documents"][chunk])
            pairs.append(Pair(*change(a, b, document, rng, others), 1))
    return pairs


class Objective(NamedTuple):
    """A sentence objective.

    Attributes:
      labels: what the labels 0 and 1 say of a pair, for people.
      change: (A, B, document, generator, other rows) -> the A and B of label 1; None where there
        is no sentence loss, and so no B.
    """

    labels: tuple[str, ...]
    change: Callable[..., tuple[SentenceRun, SentenceRun]] | None


def _swapped(
    a: SentenceRun, b: SentenceRun, document: int, rng: np.random.Generator, others: RowSource
) -> tuple[SentenceRun, SentenceRun]:
    del document, rng, others
    return b, a


def _of_another_document(
    a: SentenceRun, b: SentenceRun, document: int, rng: np.random.Generator, others: RowSource
) -> tuple[SentenceRun, SentenceRun]:
    return a, _borrow(document, len(b.pieces), rng, others)


# The objectives by name; another is another entry here.
OBJECTIVES = {
    "sop": Objective(("in order", "swapped"), _swapped),
    "nsp": Objective(("B follows A", "B from another document"), _of_another_document),
    "none": Objective(("",), None),
}


def _bounds(row: StoredRow) -> list[int]:
    """Returns where each sentence of a row starts, and where the last one ends."""
    # Lists, because for a few dozen sentences NumPy's overhead exceeds the time of the additions.
    bounds = list(itertools.accumulate(row["sentence_lengths"].tolist(), initial=0))
    sentences = sum(row["chunk_sentences"].tolist())
    if sentences != len(bounds) - 1 or bounds[-1] != len(row["pieces"]):
        raise ValueError(
            f"row with chunk_sentences {row['chunk_sentences'].tolist()}, sentence_lengths "
            f"{row['sentence_lengths'].tolist()} and {len(row['pieces'])} pieces: the sums are "
            "inconsistent; prepare the data again"
        )
    return bounds


def _whole(row: StoredRow, bounds: list[int]) -> SentenceRun:
    sentence_starts = np.zeros(bounds[-1], bool)
    sentence_starts[bounds[:-1]] = True
    return SentenceRun(row["pieces"], sentence_starts, row.get("word_starts"))


def _cut(run: SentenceRun, start: int, stop: int) -> SentenceRun:
    words = run.word_starts
    return SentenceRun(
        run.pieces[start:stop],
        run.sentence_starts[start:stop],
        None if words is None else words[start:stop],
    )


def _borrow(
    document: int, max_pieces: int, rng: np.random.Generator, others: RowSource
) -> SentenceRun:
    """Draws a run of at most `max_pieces` pieces from a document other than `document`.

    Draws a row and a chunk of it until the document differs. Then draws the first sentence among
    those with at least `max_pieces` pieces from there to the chunk's end (else takes the chunk's
    first). The run consists of whole sentences, because a truncated one would give the borrowed B
    away. Only a first sentence that is too long by itself is cut.
    """
    for _ in range(MAX_TRIES):
        row = others[int(rng.integers(len(others)))]
        chunk = int(rng.integers(len(row["chunk_documents"])))
        if row["chunk_documents"][chunk] != document:
            break
    else:
        raise ValueError(
            f"sentence_objective nsp: {MAX_TRIES} drawn rows hold no document other than "
            f"{document}; prepare more documents, or use sop"
        )
    last = int(row["chunk_sentences"][: chunk + 1].sum())
    every = _bounds(row)
    bounds = every[last - int(row["chunk_sentences"][chunk]) : last + 1]
    long_enough = bisect.bisect_right(bounds, bounds[-1] - max_pieces)
    sentence = int(rng.integers(max(1, long_enough)))
    start = bounds[sentence]
    whole_sentences = bounds[bisect.bisect_right(bounds, start + max_pieces) - 1]
    stop = whole_sentences if whole_sentences > start else start + max_pieces
    return _cut(_whole(row, every), start, stop)


def before(counts: np.ndarray) -> np.ndarray:
    """Returns the exclusive cumulative sum of `counts`: the number of items before each group."""
    return np.cumsum(counts) - counts


def lay_out(rows: Sequence[Sequence[Pair]], special: SpecialIds) -> Layout:
    """Adds the special ids around A and B of each chunk, and concatenates chunks and rows.

    Works on all rows of a batch at once, because NumPy's overhead for one row is as large as the
    time for many.

    Args:
      rows: the chunks of each row, at least one per row.
      special: the vocabulary's special ids.
    """
    pairs = list(itertools.chain.from_iterable(rows))
    runs = [run for pair in pairs for run in (pair.a, pair.b) if run is not None]
    has_b = np.array([pair.b is not None for pair in pairs])
    chunk_of_run = np.repeat(np.arange(len(pairs)), 1 + has_b)
    is_b = np.diff(chunk_of_run, prepend=-1) == 0
    pieces_of_run = np.array([len(run.pieces) for run in runs])
    slots_of_run = pieces_of_run + 2 - is_b  # an A has [CLS] before it; [SEP] follows either
    slots_of_chunk = np.add.reduceat(slots_of_run, np.flatnonzero(~is_b))
    chunks = np.array([len(row) for row in rows])
    slots = np.add.reduceat(slots_of_chunk, before(chunks))
    cls_slots = before(slots_of_chunk)
    # A piece is preceded by one [SEP] per run before its own, and by one [CLS] per chunk up to and
    # including its own.
    specials_before = np.arange(len(runs)) + chunk_of_run + 1
    piece_slots = np.arange(pieces_of_run.sum()) + np.repeat(specials_before, pieces_of_run)
    ids = np.full(slots.sum(), special.sep, np.int32)
    ids[cls_slots] = special.cls
    ids[piece_slots] = np.concatenate([run.pieces for run in runs])
    number = np.arange(1, len(pairs) + 1) - np.repeat(before(chunks), chunks)
    types, positions, segments, cls_positions = (
        x.astype(np.int32)
        for x in (
            np.repeat(is_b, slots_of_run),
            np.arange(len(ids)) - np.repeat(cls_slots, slots_of_chunk),
            np.repeat(number, slots_of_chunk),
            cls_slots - np.repeat(before(slots), chunks),
        )
    )
    return Layout(
        slots=slots,
        chunks=chunks,
        pieces=np.diff(np.searchsorted(piece_slots, np.cumsum(slots)), prepend=0),
        input_ids=ids,
        token_type_ids=types,
        position_ids=positions,
        segment_ids=segments,
        cls_positions=cls_positions,
        sentence_labels=np.array([pair.label for pair in pairs], np.int32),
        sentence_weights=has_b.astype(np.float32),
        piece_slots=piece_slots,
        piece_segments=np.repeat(2 * chunk_of_run + is_b, pieces_of_run),
        sentence_starts=np.concatenate([run.sentence_starts for run in runs]),
        word_starts=_joined_words(runs),
    )


def _joined_words(runs: Sequence[SentenceRun]) -> np.ndarray | None:
    found = [run.word_starts for run in runs if run.word_starts is not None]
    return np.concatenate(found) if found else None
