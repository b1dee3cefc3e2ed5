"""N-gram masking: chooses runs of whole words to predict, exactly at the requested rate.

The obvious method draws n-grams one by one until a budget of tokens is full. It is biased: the
point at which it stops depends on what was drawn, and long n-grams fit in fewer places, so they
come out too rare. The method here has no such bias. The lengths n = 1..max_ngram follow p(n)
proportional to 1/n, and the fraction of masked pieces is `mask_rate`:

1. Each segment (A or B of a chunk) is tiled with n-grams of lengths drawn from p(n). Drawing ends
   with the first one that leaves fewer than max_ngram words. That one is always kept, so the
   lengths in the tiling follow p(n) (Wald's identity). The leftover words form a gap at a random
   place.
2. The tiles are placed on a circle in random order, each as wide as its number of pieces. An arc
   of length mask_rate * pieces, at a random place, selects the tiles whose first piece it covers.
   Every tile therefore has the same chance, whatever its width, and the number of masked pieces
   misses the budget by less than one tile.

Source: arXiv:1909.11942, section 3.1 and 4.1 (n-grams up to 3, 15%); arXiv:1810.04805, section
3.1 (80% [MASK], 10% random, 10% kept).
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from albert_jax.data.sentence_pairs import Layout, before
from albert_jax.data.tokenizers import PieceTable

MASKED, MASKED_OR_RANDOM = 0.8, 0.9  # Source: arXiv:1810.04805, section 3.1; the rest is kept
SLACK = 5  # room for the last n-gram, which may exceed the budget; measured in test_masking.py


class Words(NamedTuple):
    """The words of r concatenated rows: w words in s segments, none of them empty.

    Attributes:
      starts: int64[w + 1], the first piece of each word, counted among the pieces of all rows, and
        finally the number of pieces.
      maskable: int64[w + 1], the number of maskable pieces before each word, and finally in all.
      per_segment: int64[s], words in each segment, in order.
      row_ends: int64[r], words up to the end of each row.
    """

    starts: np.ndarray
    maskable: np.ndarray
    per_segment: np.ndarray
    row_ends: np.ndarray


class Ngrams(NamedTuple):
    """n-grams of words: `starts` int64[t], the first words; `lengths` int64[t], in words."""

    starts: np.ndarray
    lengths: np.ndarray


class Masked(NamedTuple):
    """Concatenated rows after masking.

    Attributes:
      input_ids: int32[n], the model's input.
      counts: int64[r], pieces to predict in each row.
      positions: int32[p], their positions within the row, ascending.
      labels: int32[p], the original pieces at those positions.
    """

    input_ids: np.ndarray
    counts: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def num_slots(seq_len: int, mask_rate: float) -> int:
    """Returns P, the maximum predictions in a row; a multiple of 8, for the hardware."""

    def up(x: float) -> int:
        return int(-(-x // 8)) * 8

    return min(up(mask_rate * seq_len + SLACK), up(seq_len))


def ngram_cdf(max_ngram: int) -> np.ndarray:
    """Returns float64[max_ngram], the probabilities of a length of at most 1, 2, ... words."""
    cdf = np.cumsum(1.0 / np.arange(1, max_ngram + 1))
    return cdf / cdf[-1]


def find_words(layout: Layout, table: PieceTable) -> Words:
    """Finds the words of rows; no word crosses a sentence or segment boundary.

    Args:
      layout: rows of the vocabulary's ids.
      table: the vocabulary's pieces; tells where words begin if the rows do not.
    """
    ids = layout.input_ids[layout.piece_slots]
    # Every segment begins with a sentence, so sentence starts suffice.
    begins = table.word_starts[ids] if layout.word_starts is None else layout.word_starts
    starts = np.flatnonzero(begins | layout.sentence_starts)
    per_segment = np.bincount(layout.piece_segments[starts])
    row_ends = np.searchsorted(starts, np.cumsum(layout.pieces))
    starts = np.append(starts, len(ids))
    maskable_before = np.concatenate(([0], np.cumsum(table.is_text[ids])))
    return Words(starts, maskable_before[starts], per_segment[per_segment > 0], row_ends)


def tile(words: Words, cdf: np.ndarray, rngs: Sequence[np.random.Generator]) -> Ngrams:
    """Tiles the segments with n-grams, leaving fewer than max_ngram words in each.

    In a segment of fewer than max_ngram words, lengths follow p(n) as far as they fit.
    Draws for a row, in this order: a length for each word; a place for the gap for each segment.

    Args:
      words: w words.
      cdf: from `ngram_cdf`.
      rngs: the generator of each row.

    Returns:
      At most w n-grams, in order, that do not overlap.
    """
    size = words.per_segment
    first = before(size)
    longest = np.minimum(size, len(cdf))
    draws, places = np.empty(len(words.starts) - 1), np.empty(len(size))
    own_segments = parts(np.searchsorted(first, words.row_ends))
    for rng, own, segments in zip(rngs, parts(words.row_ends), own_segments, strict=True):
        rng.random(out=draws[own])
        rng.random(out=places[segments])
    if longest.min() < len(cdf):
        draws *= np.repeat(cdf[longest - 1], size)
    # A segment uses the draws from its first word's on; it has no more tiles than words.
    lengths = np.searchsorted(cdf, draws, side="right") + 1
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # The last tile of a segment is the first that ends among its last `longest` words.
    last = np.searchsorted(ends, starts[first] + size - longest, side="right")
    gap = size - (ends[last] - starts[first])
    count = last + 1 - first
    gap_at = first + (places * (count + 1)).astype(np.int64)
    taken = np.arange(count.sum()) + np.repeat(first - before(count), count)
    shift = np.repeat(first - starts[first], count)
    shift += np.where(taken >= np.repeat(gap_at, count), np.repeat(gap, count), 0)
    return Ngrams(starts[taken] + shift, lengths[taken])


def parts(ends: np.ndarray) -> list[slice]:
    """Returns the slices of concatenated parts, given where each part ends."""
    return [slice(*pair) for pair in itertools.pairwise([0, *ends.tolist()])]


def draw_ngrams(
    words: Words,
    mask_rate: float,
    capacity: int,
    cdf: np.ndarray,
    rngs: Sequence[np.random.Generator],
) -> Ngrams:
    """Draws the n-grams to mask.

    An n-gram of more than `capacity` pieces is never drawn, and the last ones drawn are dropped
    if they would exceed it; both are rare. At least one n-gram with a maskable piece is drawn if
    one fits, so rows are masked above the rate where the budget is narrower than their n-grams:
    rows of a few words, and short rows of a vocabulary that is little more than letters. If the
    rate is so high that the tiling has too few pieces, the words of the gaps are added one by one.

    Draws for a row, in this order: those of `tile`; the rounding of the budget; the tiles' order;
    the place of the arc.

    Args:
      words: the rows' words.
      mask_rate: the fraction of maskable pieces to mask, in (0, 1].
      capacity: the maximum number of masked pieces in a row.
      cdf: from `ngram_cdf`.
      rngs: the generator of each row.
    """
    maskable = np.diff(words.maskable[words.row_ends], prepend=0)
    tiles = _fitting(tile(words, cdf, rngs), words, capacity)
    budget = (mask_rate * maskable + [rng.random() for rng in rngs]).astype(np.int64)
    short = np.maximum(budget, 1) > tiles.total
    if short.any():
        filled = _fill_gaps(tiles.ngrams, words, short)
        tiles = _fitting(filled, words, capacity)
    order, arc = np.arange(len(tiles.row)), np.empty(len(rngs))
    for r, (rng, own) in enumerate(zip(rngs, parts(np.cumsum(tiles.count)), strict=True)):
        rng.shuffle(order[own])
        arc[r] = rng.random()
    row, total, pieces = tiles.row, tiles.total, tiles.pieces[order]
    # Each tile's start on its row's circle, measured from the start of the arc.
    arc_at = before(total) + (arc * total).astype(np.int64)
    begin = (before(pieces) - arc_at[row]) % np.maximum(total, 1)[row]
    chosen = (begin < budget[row]) & (total > 0)[row]
    masked = np.bincount(row, pieces * chosen, len(total))
    for r in np.flatnonzero((masked == 0) & (total > 0)):
        # The arc lies inside a single tile. Wide tiles would be more likely to be that one, so
        # another unbiased choice is made: the first in the row's random order.
        chosen[np.flatnonzero((row == r) & (pieces > 0))[0]] = True
    for r in np.flatnonzero(masked > capacity):
        own = row == r
        arc_end = begin[own & chosen & (pieces > 0)].min() + capacity
        chosen[own] &= (begin + pieces <= arc_end)[own]
    kept = order[chosen]
    return Ngrams(tiles.ngrams.starts[kept], tiles.ngrams.lengths[kept])


class _Tiles(NamedTuple):
    """n-grams in row order: their rows and maskable pieces; per row, their number and pieces."""

    ngrams: Ngrams
    row: np.ndarray
    pieces: np.ndarray
    count: np.ndarray
    total: np.ndarray


def _fitting(ngrams: Ngrams, words: Words, capacity: int) -> _Tiles:
    """Returns the n-grams of at most `capacity` maskable pieces."""
    pieces = words.maskable[ngrams.starts + ngrams.lengths] - words.maskable[ngrams.starts]
    fits = pieces <= capacity
    if not fits.all():
        pieces = pieces[fits]
        ngrams = Ngrams(ngrams.starts[fits], ngrams.lengths[fits])
    row, num_rows = _row_of(ngrams.starts, words), len(words.row_ends)
    total = np.bincount(row, pieces, num_rows).astype(np.int64)
    return _Tiles(ngrams, row, pieces, np.bincount(row, minlength=num_rows), total)


def _row_of(word: np.ndarray, words: Words) -> np.ndarray:
    return np.searchsorted(words.row_ends, word, side="right")


def _fill_gaps(tiles: Ngrams, words: Words, short: np.ndarray) -> Ngrams:
    """Returns `tiles` plus, after those of each `short` row, each of its uncovered words."""
    change = np.zeros(len(words.starts), np.int64)
    change[tiles.starts] += 1
    change[tiles.starts + tiles.lengths] -= 1
    free = np.flatnonzero(np.cumsum(change[:-1]) == 0)
    free = free[short[_row_of(free, words)]]
    starts = np.concatenate((tiles.starts, free))
    lengths = np.concatenate((tiles.lengths, np.ones_like(free)))
    order = np.argsort(_row_of(starts, words), kind="stable")
    return Ngrams(starts[order], lengths[order])


def apply_mask(
    layout: Layout,
    words: Words,
    ngrams: Ngrams,
    table: PieceTable,
    rngs: Sequence[np.random.Generator],
) -> Masked:
    """Masks the pieces of the n-grams: 80% [MASK], 10% a random piece, 10% unchanged.

    Special and unknown ids inside an n-gram stay and are not predicted. Draws for a row, in this
    order: the fate of each piece; a random id for each piece that gets one.
    """
    change = np.zeros(words.starts[-1] + 1, np.int8)
    change[words.starts[ngrams.starts]] += 1
    change[words.starts[ngrams.starts + ngrams.lengths]] -= 1
    slots = layout.piece_slots[np.flatnonzero(np.cumsum(change[:-1], dtype=np.int8))]
    labels = layout.input_ids[slots]
    maskable = table.is_text[labels]
    if not maskable.all():
        slots, labels = slots[maskable], labels[maskable]
    row_ends = np.cumsum(layout.slots)
    ends = np.searchsorted(slots, row_ends)
    fate = np.empty(len(slots))
    for rng, own in zip(rngs, parts(ends), strict=True):
        rng.random(out=fate[own])
    replaced = slots[(fate >= MASKED) & (fate < MASKED_OR_RANDOM)]
    per_row = np.diff(np.searchsorted(replaced, row_ends), prepend=0).tolist()
    input_ids = layout.input_ids.copy()
    input_ids[slots[fate < MASKED]] = table.special.mask
    most = len(table.text_ids)
    drawn = [rng.integers(most, size=n) for rng, n in zip(rngs, per_row, strict=True)]
    input_ids[replaced] = table.text_ids[np.concatenate(drawn)]
    counts = np.diff(ends, prepend=0)
    positions = slots - np.repeat(before(layout.slots), counts)
    return Masked(input_ids, counts, positions.astype(np.int32), labels)


def mask(
    layout: Layout,
    table: PieceTable,
    mask_rate: float,
    capacity: int,
    cdf: np.ndarray,
    rngs: Sequence[np.random.Generator],
) -> Masked:
    """Masks rows; `draw_ngrams` and `apply_mask` document the method and the order of draws.

    Args:
      layout: the rows.
      table: the vocabulary's pieces.
      mask_rate: the fraction of maskable pieces to mask, in (0, 1].
      capacity: the maximum number of masked pieces in a row, see `num_slots`.
      cdf: from `ngram_cdf`.
      rngs: the generator of each row; its draws depend only on its own row.
    """
    words = find_words(layout, table)
    ngrams = draw_ngrams(words, mask_rate, capacity, cdf, rngs)
    return apply_mask(layout, words, ngrams, table, rngs)
