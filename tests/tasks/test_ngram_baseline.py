"""The baseline that counts: distributions, smoothing and whole runs, against brute force."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.pieces import MASK, SEP

from albert_jax.config import DataConfig
from albert_jax.data.loader import Rows
from albert_jax.data.row_reader import read_manifest
from albert_jax.data.sampling import EVAL_SEED
from albert_jax.tasks import ngram_baseline
from albert_jax.tasks.ngram_baseline import NgramModel

VOCAB_SIZE = 12
DISCOUNT = 0.75


def random_text(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chunks = [rng.integers(5, VOCAB_SIZE, rng.integers(1, 9)).tolist() for _ in range(150)]
    parts = [[SEP, SEP], *([*chunk, SEP, SEP] for chunk in chunks)]
    return np.concatenate(parts).astype(np.int64)


def all_contexts() -> np.ndarray:
    ids = [SEP, MASK, *range(5, VOCAB_SIZE)]
    return np.array(np.meshgrid(*[ids] * 4)).reshape(4, -1).T


def test_every_component_is_a_distribution():
    parts, group = NgramModel(random_text(), VOCAB_SIZE).components(all_contexts())
    assert parts.shape == (len(group), 5, VOCAB_SIZE)
    assert parts.min() > 0
    np.testing.assert_allclose(parts.sum(axis=2), 1, atol=1e-5)
    assert {0, 2, 3} <= set(group)  # contexts that were never, sometimes and often seen


@pytest.mark.parametrize(("component", "near", "far"), [(1, -1, -2), (2, 1, 2)])
def test_a_side_is_interpolated_as_written_down(component: int, near: int, far: int):
    text = random_text()
    model = NgramModel(text, VOCAB_SIZE)
    places = [i for i, token in enumerate(text) if token != SEP]
    tokens = Counter(text[places].tolist())

    def of_order(same: list[int], lower: np.ndarray) -> np.ndarray:
        counts = Counter(text[same].tolist())
        if not counts:
            return lower
        total = sum(counts.values())
        kept = [max(counts[v] - DISCOUNT, 0) / total for v in range(VOCAB_SIZE)]
        return np.array(kept) + DISCOUNT * len(counts) / total * lower

    unigram = np.array([tokens[v] + 1 for v in range(VOCAB_SIZE)])
    unigram = unigram / unigram.sum()
    for context in all_contexts()[::7]:
        close, distant = (context[1], context[0]) if near < 0 else (context[2], context[3])
        first = [i for i in places if text[i + near] == close]
        second = [i for i in first if text[i + far] == distant]
        expected = of_order(second, of_order(first, unigram))
        found = model.components(context[None])[0][0, component]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_always_follows_is_predicted_and_what_nothing_tells_is_not():
    rng = np.random.default_rng(0)
    # A free token, then twice the same one: the last is certain, the first is one of four.
    triples = [[5, x, x] for x in rng.integers(6, 10, 3000)]
    text = np.concatenate([[SEP, SEP], *triples, [SEP, SEP]]).astype(np.int64)
    model = NgramModel(text, VOCAB_SIZE)
    known, free = np.array([[5, 7, 5, 8]]), np.array([[7, 5, MASK, 5]])
    model.fit(np.repeat(known, 50, axis=0), np.full(50, 7))
    probability, is_best = model.predict(known, np.array([7]))
    assert probability[0] > 0.99
    assert is_best[0]
    model.fit(np.repeat(free, 400, axis=0), np.tile(np.arange(6, 10), 100))
    probability, _ = model.predict(np.repeat(free, 4, axis=0), np.arange(6, 10))
    # 750 draws followed this token: three standard deviations.
    np.testing.assert_allclose(probability, 0.25, atol=0.05)


def test_weights_must_be_fitted_first():
    with pytest.raises(ValueError, match="call fit first"):
        NgramModel(random_text(), VOCAB_SIZE).predict(all_contexts()[:1], np.array([5]))


def test_a_run_s_held_out_masks_are_predicted(rows: Path):
    data = DataConfig(path=str(rows), seq_len=64, eval_mask_rate=0.2, max_ngram=1)
    found = ngram_baseline.ngram_baseline(data)
    held_out, manifest = Rows(data, "validation"), read_manifest(data)
    examples = [held_out.make_example(EVAL_SEED, 0, row) for row in range(held_out.num_rows)]
    assert found.masks == sum(int(example["mlm_weights"].sum()) for example in examples)
    assert 0.9 * manifest["pieces"]["train"] < found.counted < manifest["pieces"]["train"]
    assert 0 < found.loss < np.log(manifest["vocab_size"])
    assert ngram_baseline.ngram_baseline(data, limit=500).counted < 1000
