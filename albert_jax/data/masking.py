"""Which pieces to predict: runs of whole words (n-grams), exactly at the asked rate.

Lengths n = 1..max_ngram have p(n) proportional to 1/n, and the share of masked pieces is
`mask_rate`, both without bias:

1. Each segment (A or B of a chunk) is tiled with n-grams of lengths drawn from p(n). Drawing ends
   with the first one that leaves fewer than max_ngram words; it is always kept, so the lengths in
   the tiling follow p(n) (Wald's identity). The words left over form a gap at a random place.
2. The tiles are put on a circle in random order, each as wide as its pieces. An arc of
   mask_rate * pieces, at a random place, selects the tiles whose first piece it covers. So each
   tile has the same chance, whatever its width, and the number of masked pieces misses the
   budget by less than one tile.

Drawing n-grams one by one until a budget is full has neither property: stopping depends on what
was drawn, and long n-grams fit in fewer places.

Source: arXiv:1909.11942, section 3.1 and 4.1 (n-grams up to 3, 15%); arXiv:1810.04805, section
3.1 (80% [MASK], 10% random, 10% kept).
"""

from typing import NamedTuple

import numpy as np

from albert_jax.data.sentence_pairs import Layout
from albert_jax.tokenizer import MASK, NUM_SPECIAL

MASKED, MASKED_OR_RANDOM = 0.8, 0.9  # Source: arXiv:1810.04805, section 3.1; the rest is kept
SLACK = 5  # room for the last n-gram, which may pass the budget; measured in tests/test_masking.py


class Words(NamedTuple):
    """The words of a row; w words in s segments that are not empty.

    Attributes:
      starts: int64[w + 1], the first piece of each word, counted among the row's pieces, and the
        number of pieces.
      maskable: int64[w + 1], how many pieces before each word, and in all, may be masked.
      per_segment: int64[s], words in each segment; they follow one another.
    """

    starts: np.ndarray
    maskable: np.ndarray
    per_segment: np.ndarray


class Ngrams(NamedTuple):
    """n-grams of words: `starts` int64[t], number of the first word; `lengths` int64[t]."""

    starts: np.ndarray
    lengths: np.ndarray


class Masked(NamedTuple):
    """A masked row.

    Attributes:
      input_ids: int32[n] as the model reads it.
      positions: int32[p], ascending slots of the pieces to predict.
      labels: int32[p], the pieces that stood there.
    """

    input_ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def num_slots(seq_len: int, mask_rate: float) -> int:
    """Returns P, the most predictions a row may have; a multiple of 8, for the hardware."""

    def up(x: float) -> int:
        return int(-(-x // 8)) * 8

    return min(up(mask_rate * seq_len + SLACK), up(seq_len))


def ngram_cdf(max_ngram: int) -> np.ndarray:
    """Returns float64[max_ngram], the chances of a length of at most 1, 2, ... words."""
    cdf = np.cumsum(1.0 / np.arange(1, max_ngram + 1))
    return cdf / cdf[-1]


def find_words(layout: Layout, word_starts: np.ndarray) -> Words:
    """Finds the words of a row; none crosses a sentence or a segment.

    Args:
      layout: a row of the vocabulary's ids.
      word_starts: bool[V], True where a piece begins a word.
    """
    ids = layout.input_ids[layout.piece_slots]
    # A segment begins with a sentence.
    starts = np.flatnonzero(word_starts[ids] | layout.sentence_starts)
    per_segment = np.bincount(layout.piece_segments[starts])
    starts = np.append(starts, len(ids))
    maskable_before = np.concatenate(([0], np.cumsum(ids >= NUM_SPECIAL)))
    return Words(starts, maskable_before[starts], per_segment[per_segment > 0])


def tile(words: Words, cdf: np.ndarray, rng: np.random.Generator) -> Ngrams:
    """Tiles the segments with n-grams, but for fewer than max_ngram words in each.

    In a segment of fewer than max_ngram words, lengths follow p(n) as far as they fit.
    Draws, in this order: a length for each word; a place for the gap for each segment.

    Args:
      words: of w words.
      cdf: from `ngram_cdf`.
      rng: this example's generator.

    Returns:
      At most w n-grams, in order, that do not overlap.
    """
    size = words.per_segment
    first = np.cumsum(size) - size
    longest = np.minimum(size, len(cdf))
    draws = rng.random(len(words.starts) - 1)
    if longest.min() < len(cdf):
        draws *= np.repeat(cdf[longest - 1], size)
    # A segment takes draws from that of its first word on: it has no more tiles than words.
    lengths = np.searchsorted(cdf, draws, side="right") + 1
    ends = np.cumsum(lengths)
    starts = ends - lengths
    # The last tile of a segment is the first to end behind its last `longest` words.
    last = np.searchsorted(ends, starts[first] + size - longest, side="right")
    gap = size - (ends[last] - starts[first])
    gap_at = first + (rng.random(len(size)) * (last - first + 2)).astype(np.int64)
    kept = []
    for i, place, stop, width in zip(first, gap_at, last + 1, gap, strict=True):
        starts[i:stop] += i - starts[i]
        starts[place:stop] += width
        kept.append(slice(i, stop))
    return Ngrams(*(np.concatenate([x[part] for part in kept]) for x in (starts, lengths)))


def draw_ngrams(
    words: Words, mask_rate: float, capacity: int, cdf: np.ndarray, rng: np.random.Generator
) -> Ngrams:
    """Draws the n-grams to mask.

    An n-gram of more than `capacity` pieces is never drawn, and the last ones drawn are dropped
    where they would exceed it; both are rare. At least one n-gram with a maskable piece is drawn
    where there is one that fits, so very short rows are masked above the rate. Where the rate is
    so high that the tiling has too few pieces, the words of the gaps are added one by one.

    Draws, in this order: those of `tile`; the rounding of the budget; the tiles' order; the
    place of the arc.

    Args:
      words: the row's words.
      mask_rate: the share of maskable pieces to mask, in (0, 1].
      capacity: the most pieces that may be masked.
      cdf: from `ngram_cdf`.
      rng: this example's generator.
    """
    none = Ngrams(np.zeros(0, np.int64), np.zeros(0, np.int64))
    if words.maskable[-1] == 0:
        return none
    tiles, pieces = _fitting(tile(words, cdf, rng), words, capacity)
    budget = int(mask_rate * words.maskable[-1] + rng.random())
    total = int(pieces.sum())
    if max(budget, 1) > total:
        tiles, pieces = _fitting(_fill_gaps(tiles, len(words.starts) - 1), words, capacity)
        total = int(pieces.sum())
    if total == 0:
        return none
    order = rng.permutation(len(pieces))
    pieces = pieces[order]
    # Where on the circle each tile begins, counted from where the arc does.
    begin = (np.cumsum(pieces) - pieces - int(rng.random() * total)) % total
    chosen = begin < budget
    masked = int(pieces[chosen].sum())
    if masked == 0:  # the arc lies inside one tile; which one depends on its width, so take any
        chosen[np.flatnonzero(pieces)[0]] = True
    elif masked > capacity:
        chosen &= begin + pieces - begin[chosen & (pieces > 0)].min() <= capacity
    return Ngrams(tiles.starts[order[chosen]], tiles.lengths[order[chosen]])


def _fitting(ngrams: Ngrams, words: Words, capacity: int) -> tuple[Ngrams, np.ndarray]:
    """The n-grams of at most `capacity` maskable pieces, and how many each has."""
    pieces = words.maskable[ngrams.starts + ngrams.lengths] - words.maskable[ngrams.starts]
    fits = pieces <= capacity
    if fits.all():
        return ngrams, pieces
    return Ngrams(ngrams.starts[fits], ngrams.lengths[fits]), pieces[fits]


def _fill_gaps(tiles: Ngrams, num_words: int) -> Ngrams:
    """`tiles` and each word that none of them covers."""
    change = np.zeros(num_words + 1, np.int64)
    change[tiles.starts] += 1
    change[tiles.starts + tiles.lengths] -= 1
    free = np.flatnonzero(np.cumsum(change[:-1]) == 0)
    return Ngrams(
        np.concatenate((tiles.starts, free)),
        np.concatenate((tiles.lengths, np.ones_like(free))),
    )


def apply_mask(
    layout: Layout, words: Words, ngrams: Ngrams, vocab_size: int, rng: np.random.Generator
) -> Masked:
    """Hides the pieces of the n-grams: 80% [MASK], 10% any other piece, 10% stay as they are.

    Special and unknown ids inside an n-gram stay and are not predicted. Draws, in this order:
    what becomes of each piece; a random id for each piece that gets one.
    """
    change = np.zeros(words.starts[-1] + 1, np.int8)
    change[words.starts[ngrams.starts]] += 1
    change[words.starts[ngrams.starts + ngrams.lengths]] -= 1
    slots = layout.piece_slots[np.flatnonzero(np.cumsum(change[:-1], dtype=np.int8))]
    labels = layout.input_ids[slots]
    maskable = labels >= NUM_SPECIAL
    if not maskable.all():
        slots, labels = slots[maskable], labels[maskable]
    fate = rng.random(len(slots))
    hidden = slots[fate < MASKED]
    replaced = slots[(fate >= MASKED) & (fate < MASKED_OR_RANDOM)]
    input_ids = layout.input_ids.copy()
    input_ids[hidden] = MASK
    input_ids[replaced] = rng.integers(NUM_SPECIAL, vocab_size, len(replaced))
    return Masked(input_ids, slots.astype(np.int32), labels)


def mask(
    layout: Layout,
    word_starts: np.ndarray,
    mask_rate: float,
    capacity: int,
    cdf: np.ndarray,
    rng: np.random.Generator,
) -> Masked:
    """Masks one row; `draw_ngrams` and `apply_mask` say how and in which order they draw.

    Args:
      layout: the row.
      word_starts: bool[V], True where a piece begins a word.
      mask_rate: the share of maskable pieces to mask, in (0, 1].
      capacity: the most pieces that may be masked, see `num_slots`.
      cdf: from `ngram_cdf`.
      rng: this example's generator.
    """
    words = find_words(layout, word_starts)
    ngrams = draw_ngrams(words, mask_rate, capacity, cdf, rng)
    return apply_mask(layout, words, ngrams, len(word_starts), rng)
