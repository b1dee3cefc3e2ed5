"""Rows hold every sentence once, in chunks that fit, and are well filled."""

import itertools
import random

import numpy as np
import pytest

from albert_jax.data.row_format import CHUNK_OVERHEAD
from albert_jax.prepare.packing import SentenceRange, chunk_end, pack, target_length
from albert_jax.prepare.settings import RowSettings


def random_block(seed, seq_len, documents):
    """Returns (ends, runs, digests) of random sentences."""
    draw = random.Random(seed)
    lengths, runs = [], []
    for i in range(documents):
        first = len(lengths)
        count = draw.choice([0, 1, 2, 30, 300])
        lengths += [
            min(seq_len - CHUNK_OVERHEAD, 1 + int(draw.expovariate(1 / 20))) for _ in range(count)
        ]
        runs.append(SentenceRange(i, first, len(lengths)))
    ends = list(itertools.accumulate(lengths, initial=0))
    return ends, runs, [draw.getrandbits(64) for _ in runs]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("seq_len", [16, 64, 512])
def test_pack_keeps_every_sentence_once_and_fits(seq_len, packing):
    for seed in range(10):
        ends, runs, digests = random_block(seed, seq_len, 40)
        settings = RowSettings(seq_len, packing)
        rows = pack(ends, runs, digests, settings)
        assert rows == pack(ends, runs, digests, settings)
        sentences = [s for row in rows for c in row for s in range(c.first, c.last)]
        assert sorted(sentences) == list(range(len(ends) - 1))
        for row in rows:
            used = sum(ends[c.last] - ends[c.first] + CHUNK_OVERHEAD for c in row)
            assert used <= seq_len
            assert len(row) <= (seq_len // 16 if packing else 1)
            for c in row:
                assert c.first < c.last
                assert runs[c.owner].first <= c.first
                assert c.last <= runs[c.owner].last


def test_packing_fills_rows_that_chunks_alone_leave_open():
    ends, runs, digests = random_block(0, 128, 100)
    fill = {}
    for packing in (True, False):
        rows = pack(ends, runs, digests, RowSettings(128, packing))
        used = ends[-1] + CHUNK_OVERHEAD * sum(map(len, rows))
        fill[packing] = used / (128 * len(rows))
    assert fill[True] > 0.95 > 0.85 > fill[False]


def test_many_tiny_documents_share_rows():
    count = 1000
    ends = list(range(0, 5 * count + 1, 5))
    runs = [SentenceRange(i, i, i + 1) for i in range(count)]
    rows = pack(ends, runs, list(range(count)), RowSettings(64))
    assert {len(row) for row in rows[:-1]} == {4}
    big = pack(ends, runs, list(range(count)), RowSettings(512))
    assert {len(row) for row in big[:-1]} == {32}


def test_chunk_end():
    ends = [0, 10, 20, 30, 40]
    assert chunk_end(ends, 0, 4, target=30, limit=30) == 3
    assert chunk_end(ends, 0, 4, target=29, limit=29) == 2
    assert chunk_end(ends, 0, 4, target=11, limit=30) == 2
    assert chunk_end(ends, 0, 4, target=2, limit=30) == 1
    assert chunk_end(ends, 1, 3, target=99, limit=99) == 3
    assert chunk_end(ends, 3, 4, target=10, limit=10) == 4


def test_target_lengths_are_drawn_as_the_paper_says():
    settings = RowSettings(100, short_seq_prob=0.25)
    drawn = np.array([target_length(d, s, settings) for d in range(100) for s in range(100)])
    short = drawn[drawn < 97]
    assert abs(len(short) / len(drawn) - 0.25 * 95 / 96) < 0.015
    assert short.min() == 2
    assert abs(short.mean() - 49) < 2
    assert {target_length(1, s, RowSettings(100, short_seq_prob=0)) for s in range(99)} == {97}
    other = RowSettings(100, short_seq_prob=0.25, seed=1)
    assert any(target_length(0, s, settings) != target_length(0, s, other) for s in range(99))
    always = RowSettings(100, short_seq_prob=1)
    assert {target_length(0, s, always) for s in range(5000)} == set(range(2, 98))


@pytest.mark.parametrize(
    "options", [{"seq_len": 15}, {"seq_len": 70_000}, {"short_seq_prob": 1.5}, {"seed": 2**63}]
)
def test_settings_out_of_range(options):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=f"{name} {value}: must be from"):
        RowSettings(**options)
