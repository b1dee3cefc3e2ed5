"""Splitting, swapping and laying out chunks."""

import numpy as np
import pytest
from support.pieces import CLS, SEP, SPECIAL

from albert_jax.data.sentence_pairs import choose_pairs, lay_out


def make_row(chunks, documents=None, first_piece=100):
    """A row of `chunks`, lists of sentence lengths, whose pieces count up from `first_piece`."""
    lengths = [n for chunk in chunks for n in chunk]
    return {
        "pieces": np.arange(first_piece, first_piece + sum(lengths), dtype=np.uint16),
        "sentence_lengths": np.array(lengths, np.uint16),
        "chunk_sentences": np.array([len(c) for c in chunks], np.uint16),
        "chunk_documents": np.array(documents or range(len(chunks)), np.uint64),
    }


def chunk_pieces(row):
    ends = np.cumsum(row["sentence_lengths"])[np.cumsum(row["chunk_sentences"]) - 1]
    return np.split(row["pieces"].astype(int), ends[:-1])


def segments(layout, chunk):
    """A and B of a chunk as the model is given them."""
    inside = layout.segment_ids == chunk + 1
    ids, types = layout.input_ids[inside], layout.token_type_ids[inside]
    return tuple(ids[(types == t) & (ids != CLS) & (ids != SEP)] for t in (0, 1))


def random_row(rng, first_piece=100, documents=None):
    chunks = [rng.integers(1, 9, rng.integers(1, 6)).tolist() for _ in range(rng.integers(1, 5))]
    documents = None if documents is None else [documents] * len(chunks)
    return make_row(chunks, documents, first_piece)


def draw(row, objective, rng, others=()):
    return lay_out([choose_pairs(row, objective, rng, others)], SPECIAL)


@pytest.mark.parametrize("objective", ["sop", "nsp", "none"])
def test_special_ids_frame_each_chunk(objective):
    rng = np.random.default_rng(0)
    others = [random_row(rng, 1000, 77) for _ in range(20)]
    for _ in range(200):
        layout = draw(random_row(rng), objective, rng, others)
        n, m = len(layout.input_ids), len(layout.cls_positions)
        assert set(layout.segment_ids) == set(range(1, m + 1))
        assert (np.diff(layout.segment_ids) >= 0).all()
        assert np.array_equal(np.flatnonzero(layout.input_ids == CLS), layout.cls_positions)
        assert np.array_equal(
            layout.piece_slots, np.flatnonzero(~np.isin(layout.input_ids, (CLS, SEP)))
        )
        for chunk in range(m):
            inside = np.flatnonzero(layout.segment_ids == chunk + 1)
            ids, types = layout.input_ids[inside], layout.token_type_ids[inside]
            seps = np.flatnonzero(ids == SEP)
            has_b = layout.sentence_weights[chunk] > 0
            assert seps[-1] == len(ids) - 1
            assert len(seps) == 1 + has_b
            assert np.array_equal(types, np.arange(len(ids)) > seps[0])
            assert np.array_equal(layout.position_ids[inside], np.arange(len(ids)))
            in_chunk = np.isin(layout.piece_slots, inside)
            expected = 2 * chunk + layout.token_type_ids[layout.piece_slots[in_chunk]]
            assert np.array_equal(layout.piece_segments[in_chunk], expected)
        assert n == len(layout.piece_slots) + 2 * m + int(layout.sentence_weights.sum())


def test_sop_gives_back_the_chunk_in_either_order():
    rng = np.random.default_rng(1)
    for _ in range(300):
        row = random_row(rng)
        layout = draw(row, "sop", rng)
        for chunk, pieces in enumerate(chunk_pieces(row)):
            a, b = segments(layout, chunk)
            if row["chunk_sentences"][chunk] == 1:
                assert (
                    len(b) == layout.sentence_labels[chunk] == layout.sentence_weights[chunk] == 0
                )
            else:
                assert min(len(a), len(b), layout.sentence_weights[chunk]) > 0
            order = (b, a) if layout.sentence_labels[chunk] else (a, b)
            assert np.array_equal(np.concatenate(order), pieces)


def test_split_points_are_uniform_over_inner_sentence_boundaries():
    rng = np.random.default_rng(2)
    row = make_row([[3, 5, 7, 11]])
    first_lengths, swaps, trials = [], 0, 20_000
    for _ in range(trials):
        (pair,) = choose_pairs(row, "sop", rng)
        swaps += pair.label
        assert pair.b is not None
        first = pair.b if pair.label else pair.a
        first_lengths.append(len(first.pieces))
    lengths, counts = np.unique(first_lengths, return_counts=True)
    assert lengths.tolist() == [3, 8, 15]
    assert np.abs(counts / trials - 1 / 3).max() < 4 * np.sqrt(2 / 9 / trials)
    assert abs(swaps / trials - 0.5) < 4 * np.sqrt(0.25 / trials)


def test_sentence_starts_follow_the_pieces():
    rng = np.random.default_rng(3)
    row = make_row([[3, 5, 7], [4], [2, 2]])
    first_pieces = 100 + np.array([0, 3, 8, 15, 19, 21])
    for objective in ("sop", "none"):
        layout = draw(row, objective, rng)
        ids = layout.input_ids[layout.piece_slots]
        assert sorted(ids[layout.sentence_starts]) == first_pieces.tolist()


def test_without_an_objective_chunks_stay_whole():
    rng = np.random.default_rng(4)
    row = random_row(rng)
    layout = draw(row, "none", rng)
    for unused in (layout.token_type_ids, layout.sentence_labels, layout.sentence_weights):
        assert not unused.any()
    for chunk, pieces in enumerate(chunk_pieces(row)):
        assert np.array_equal(segments(layout, chunk)[0], pieces)


def test_nsp_borrows_sentences_of_other_documents():
    rng = np.random.default_rng(5)
    # Row i has pieces 1000 * (i + 1) + 0, 1, 2, ...; the first two rows are of one document.
    rows = [random_row(rng, 1000 * (i + 1), max(i, 1)) for i in range(6)]
    labels, num_borrowed = [], 0
    for trial in range(2000):
        row = rows[trial % len(rows)]
        layout = draw(row, "nsp", rng, rows)
        for chunk, pieces in enumerate(chunk_pieces(row)):
            a, b = segments(layout, chunk)
            if not layout.sentence_weights[chunk]:
                assert np.array_equal(a, pieces)
                assert len(b) == 0
                continue
            labels.append(layout.sentence_labels[chunk])
            assert np.array_equal(a, pieces[: len(a)])
            if labels[-1]:
                other = rows[b[0] // 1000 - 1]
                assert other["chunk_documents"][0] != row["chunk_documents"][0]
                assert np.array_equal(b, np.arange(b[0], b[0] + len(b)))
                assert 0 < len(b) <= len(pieces) - len(a)
                ends = np.cumsum(other["sentence_lengths"], dtype=np.int64)
                sentence_firsts = other["pieces"][0] + np.append(0, ends[:-1])
                assert b[0] in sentence_firsts
                in_b = layout.piece_segments == 2 * chunk + 1
                assert np.array_equal(layout.sentence_starts[in_b], np.isin(b, sentence_firsts))
                num_borrowed += 1
            else:
                assert np.array_equal(np.concatenate((a, b)), pieces)
    assert num_borrowed > 500
    assert abs(np.mean(labels) - 0.5) < 4 * np.sqrt(0.25 / len(labels))


def test_nsp_cuts_only_a_sentence_that_is_too_long_by_itself():
    rng = np.random.default_rng(6)
    row = make_row([[5, 6]], [0])  # B has 6 pieces
    for other, expected in (([2, 3, 9], {3, 5, 6}), ([20, 30], {6}), ([4, 4], {4})):
        others = [make_row([other], [1], 1000)]
        pairs = [choose_pairs(row, "nsp", rng, others)[0] for _ in range(200)]
        assert {len(p.b.pieces) for p in pairs if p.b and p.label} == expected


def test_nsp_needs_a_second_document():
    row = make_row([[5, 6]] * 10, [3] * 10)
    with pytest.raises(ValueError, match=r"nsp.*prepare more documents"):
        choose_pairs(row, "nsp", np.random.default_rng(0), [row])


@pytest.mark.parametrize("field", ["sentence_lengths", "chunk_sentences"])
def test_contradicting_lengths_are_an_error(field):
    row = make_row([[5, 6], [7]])
    row[field] = row[field] + np.uint16(1)
    with pytest.raises(ValueError, match="sums are inconsistent"):
        choose_pairs(row, "sop", np.random.default_rng(0))
