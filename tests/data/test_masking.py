"""Masks: whole words, the rate, the lengths, and what is put in place of the pieces.

Bounds are 4 standard errors of a mean over 10,000 rows: wide enough never to fail by chance (the
draws are fixed anyway), narrow enough to see a bias of a third of a percent.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from support.pieces import CLS, MASK, NUM_SPECIAL, SEP, SPECIAL, UNK, table_of

from albert_jax.data.masking import (
    apply_mask,
    draw_ngrams,
    find_words,
    mask,
    ngram_cdf,
    num_slots,
    tile,
)
from albert_jax.data.sentence_pairs import choose_pairs, lay_out

NUM_ROWS = 10_000
VOCAB = 1000
# Pieces below this id begin a word: about 1.5 pieces a word, as in English.
FIRST_INNER = 670
WORD_STARTS = np.arange(VOCAB) < FIRST_INNER
TABLE = table_of(WORD_STARTS)


def random_pairs(rng, num_pieces=490, unknown=0.01, max_sentence=60):
    """The pairs of a row of 1 to 3 chunks of random pieces."""
    ids = rng.integers(NUM_SPECIAL, VOCAB, num_pieces).astype(np.uint16)
    ids[rng.random(num_pieces) < unknown] = UNK
    lengths = []
    while (left := num_pieces - sum(lengths)) > 0:
        lengths.append(min(left, int(rng.integers(1, max_sentence))))
    cuts = np.unique(rng.integers(1, len(lengths) + 1, rng.integers(0, 3)))
    sentences = np.diff(np.unique(np.concatenate(([0], cuts, [len(lengths)]))))
    row = {
        "pieces": ids,
        "sentence_lengths": np.array(lengths, np.uint16),
        "chunk_sentences": sentences.astype(np.uint16),
        "chunk_documents": np.arange(len(sentences), dtype=np.uint64),
    }
    return choose_pairs(row, "sop", rng)


def random_layout(*args, **settings):
    return lay_out([random_pairs(*args, **settings)], SPECIAL)


def within(values, expected):
    """Whether the mean of independent values is the expected one, within 4 standard errors."""
    error = np.std(values) / np.sqrt(len(values))
    return abs(np.mean(values) - expected) <= 4 * error


@pytest.fixture(scope="module")
def masked_rows():
    """10,000 masked rows of 512 slots, from 200 layouts."""
    rng, cdf, capacity = np.random.default_rng(0), ngram_cdf(3), num_slots(512, 0.15)
    layouts = [random_layout(rng) for _ in range(200)]
    rows = []
    for i in range(NUM_ROWS):
        layout = layouts[i % len(layouts)]
        words = find_words(layout, TABLE)
        ngrams = draw_ngrams(words, 0.15, capacity, cdf, [rng])
        masked = apply_mask(layout, words, ngrams, TABLE, [rng])
        rows.append(SimpleNamespace(masked=masked, layout=layout, words=words, ngrams=ngrams))
    return rows


def test_rate(masked_rows):
    # Special ids, [UNK] among them, are below NUM_SPECIAL.
    misses = [
        len(r.masked.positions) - 0.15 * np.sum(r.layout.input_ids >= NUM_SPECIAL)
        for r in masked_rows
    ]
    assert within(misses, 0)
    assert np.max(np.abs(misses)) < 20  # never off by more than one n-gram


def test_lengths_follow_one_over_n(masked_rows):
    lengths = np.concatenate([r.ngrams.lengths for r in masked_rows])
    for n, p in zip((1, 2, 3), (6 / 11, 3 / 11, 2 / 11), strict=True):
        assert within(lengths == n, p), n


def test_ngrams_are_whole_words_of_one_segment(masked_rows):
    for r in masked_rows[:1000]:
        segments = r.layout.piece_segments[r.words.starts[:-1]]
        covered = np.zeros(len(segments), int)
        for start, n in zip(*r.ngrams, strict=True):
            covered[start : start + n] += 1
            assert len(set(segments[start : start + n])) == 1
        assert covered.max() == 1  # n-grams do not overlap
        word = np.repeat(covered, np.diff(r.words.starts)).astype(bool)
        known = r.layout.input_ids[r.layout.piece_slots] != UNK
        assert np.array_equal(r.masked.positions, r.layout.piece_slots[word & known])


def test_words_begin_at_word_starts_sentences_and_segments():
    rng = np.random.default_rng(7)
    for _ in range(100):
        layout = random_layout(rng, num_pieces=60, max_sentence=10)
        begins = set(find_words(layout, TABLE).starts[:-1].tolist())
        ids = layout.input_ids[layout.piece_slots]
        for k in range(len(ids)):
            new_segment = k == 0 or layout.piece_segments[k] != layout.piece_segments[k - 1]
            expected = ids[k] < FIRST_INNER or layout.sentence_starts[k] or new_segment
            assert (k in begins) == expected


def test_every_word_has_about_the_same_chance(masked_rows):
    layout = masked_rows[0].layout
    rows = [r for r in masked_rows if r.layout is layout]
    rng, words, cdf = np.random.default_rng(8), rows[0].words, ngram_cdf(3)
    hits = np.zeros(len(words.starts) - 1)
    for _ in range(4000):
        starts, lengths = draw_ngrams(words, 0.15, 88, cdf, [rng])
        for n in (1, 2, 3):
            for j in range(n):
                hits[starts[lengths == n] + j] += 1
    # Those at the ends of segments have a little less: longer n-grams would stick out.
    share = hits / 4000
    assert share.min() > 0.1
    assert share.max() < 0.19
    assert abs(np.mean(share) - 0.15) < 0.002


def test_unmasking_gives_back_the_row(masked_rows):
    for r in masked_rows[:1000]:
        assert (np.diff(r.masked.positions) > 0).all()
        ids = r.masked.input_ids.copy()
        ids[r.masked.positions] = r.masked.labels
        assert np.array_equal(ids, r.layout.input_ids)
        assert (r.masked.labels >= NUM_SPECIAL).all()


def test_80_percent_mask_10_random_10_kept(masked_rows):
    new = np.concatenate([r.masked.input_ids[r.masked.positions] for r in masked_rows])
    old = np.concatenate([r.masked.labels for r in masked_rows])
    same = 0.1 / (VOCAB - NUM_SPECIAL)  # a random id that happens to be the old one
    assert within(new == MASK, 0.8)
    assert within(new == old, 0.1 + same)
    replaced = new[(new != MASK) & (new != old)]
    assert (replaced.min(), replaced.max()) == (NUM_SPECIAL, VOCAB - 1)
    counts = np.bincount(replaced, minlength=VOCAB)[NUM_SPECIAL:]
    expected = len(replaced) / len(counts)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_the_row_fits_its_slots(masked_rows):
    """At 512 slots no n-gram is dropped for lack of room: the slack is larger than ever used."""
    assert max(len(r.masked.positions) for r in masked_rows) < num_slots(512, 0.15)


@pytest.mark.parametrize(
    ("rate", "max_ngram"),
    [(0.02, 1), (0.02, 2), (0.15, 1), (0.15, 2), (0.15, 10), (0.5, 3), (0.5, 10)],
)
def test_rate_and_lengths_at_other_settings(rate, max_ngram):
    rng, cdf = np.random.default_rng(9), ngram_cdf(max_ngram)
    # Sentences, and so segments, long enough for 10-grams.
    all_words = [find_words(random_layout(rng), TABLE) for _ in range(50)]
    all_words = [w for w in all_words if w.per_segment.min() >= max_ngram]
    assert len(all_words) > 20
    capacity, misses, lengths = num_slots(512, rate) + 24, [], []
    for i in range(3000):
        words = all_words[i % len(all_words)]
        ngrams = draw_ngrams(words, rate, capacity, cdf, [rng])
        ends = words.maskable[ngrams.starts + ngrams.lengths]
        masked = np.sum(ends - words.maskable[ngrams.starts])
        misses.append(masked - rate * words.maskable[-1])
        lengths.append(ngrams.lengths)
    assert within(misses, 0)
    weights = 1 / np.arange(1, max_ngram + 1)
    for n in range(1, max_ngram + 1):
        assert within(np.concatenate(lengths) == n, weights[n - 1] / weights.sum()), n


def test_a_rate_of_one_masks_everything():
    rng, cdf = np.random.default_rng(10), ngram_cdf(3)
    layout = random_layout(rng)
    masked = mask(layout, TABLE, 1.0, num_slots(512, 1.0), cdf, [rng])
    assert np.array_equal(
        masked.positions, np.flatnonzero(~np.isin(layout.input_ids, (CLS, SEP, UNK)))
    )


@pytest.mark.parametrize("num_pieces", [1, 2, 3, 7])
def test_tiny_rows_have_at_least_one_masked_piece(num_pieces):
    rng, cdf = np.random.default_rng(11), ngram_cdf(3)
    for _ in range(300):
        layout = random_layout(rng, num_pieces, unknown=0.3, max_sentence=4)
        masked = mask(layout, TABLE, 0.15, num_slots(512, 0.15), cdf, [rng])
        maskable = np.sum(layout.input_ids >= NUM_SPECIAL)
        assert min(1, maskable) <= len(masked.positions) <= maskable


def test_capacity_is_never_exceeded():
    """Words of a dozen pieces: n-grams that do not fit are dropped, those that fit are kept."""
    rng, cdf = np.random.default_rng(12), ngram_cdf(3)
    rare_starts = np.arange(VOCAB) < 80
    for capacity in (8, 16, 24):
        counts = []
        for _ in range(300):
            layout = random_layout(rng, num_pieces=100)
            counts.append(
                len(mask(layout, table_of(rare_starts), 0.15, capacity, cdf, [rng]).positions)
            )
        assert min(counts) > 0
        assert max(counts) <= capacity


def test_a_word_too_long_for_the_slots_is_left_alone():
    rng, cdf = np.random.default_rng(13), ngram_cdf(3)
    layout = random_layout(rng, num_pieces=50, unknown=0, max_sentence=51)
    no_starts = np.zeros(VOCAB, bool)
    words = find_words(layout, table_of(no_starts))
    longest = np.diff(words.starts).max()
    masked = mask(layout, table_of(no_starts), 1.0, int(longest) - 1, cdf, [rng])
    assert len(masked.positions) < longest


def test_tiles_leave_fewer_words_than_the_longest_ngram():
    rng, cdf = np.random.default_rng(14), ngram_cdf(4)
    for _ in range(300):
        words = find_words(random_layout(rng, 80, max_sentence=12), TABLE)
        tiles = tile(words, cdf, [rng])
        ends = np.cumsum(words.per_segment)
        segment = np.searchsorted(ends, tiles.starts, side="right")
        assert (tiles.starts + tiles.lengths <= ends[segment]).all()
        assert (tiles.starts[1:] >= (tiles.starts + tiles.lengths)[:-1]).all()
        gap = words.per_segment - np.bincount(segment, tiles.lengths)
        assert (gap < np.minimum(words.per_segment, 4)).all()


@pytest.mark.parametrize(
    ("seq_len", "rate", "expected"),
    [(512, 0.15, 88), (128, 0.15, 32), (512, 1.0, 512), (20, 0.9, 24)],
)
def test_num_slots(seq_len, rate, expected):
    assert num_slots(seq_len, rate) == expected


def test_same_generator_state_same_masks():
    layout = random_layout(np.random.default_rng(15))
    first, again, other = (
        mask(layout, TABLE, 0.15, 88, ngram_cdf(3), [np.random.default_rng(s)]) for s in (1, 1, 2)
    )
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(first.positions, other.positions)


@pytest.mark.parametrize(
    ("rate", "max_ngram", "capacity"),
    [(0.15, 3, 88), (0.15, 3, 8), (0.02, 1, 16), (0.6, 10, 400), (1.0, 3, 512)],
)
def test_a_row_is_masked_as_it_would_be_alone(rate, max_ngram, capacity):
    rng, cdf = np.random.default_rng(16), ngram_cdf(max_ngram)
    # Words of half a dozen pieces, so that capacities matter; tiny rows, and rows of [UNK] alone.
    starts = np.arange(VOCAB) < 150
    sizes = [*rng.integers(1, 12, 20).tolist(), *rng.integers(1, 490, 20).tolist()]
    unknown = [1.0 if i % 7 == 0 else 0.1 for i in range(len(sizes))]
    rows = [random_pairs(rng, n, u) for n, u in zip(sizes, unknown, strict=True)]

    def masked(numbers):
        layout = lay_out([rows[i] for i in numbers], SPECIAL)
        rngs = [np.random.default_rng(i) for i in numbers]
        found = mask(layout, table_of(starts), rate, capacity, cdf, rngs)
        slots = np.split(found.input_ids, np.cumsum(layout.slots)[:-1])
        predictions = [
            np.split(x, np.cumsum(found.counts)[:-1]) for x in (found.positions, found.labels)
        ]
        return list(zip(slots, *predictions, strict=True))

    together = masked(range(len(rows)))
    assert any(len(positions) == 0 for _, positions, _ in together)
    for i, found in enumerate(together):
        for a, b in zip(found, masked([i])[0], strict=True):
            assert np.array_equal(a, b), i
