"""Beam search against all translations that there are, and against greedy choice."""

import functools
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.tasks.search import NONE_FOUND, Hypotheses, SearchSettings, beam_search

BEGIN, END, WORDS, LONGEST = 0, 1, (2, 3), 4
VOCAB = 4


def table(seed: int, sources: int = 3) -> np.ndarray:
    """Log-probabilities [B, last token, the one before, position, next]; [CLS] never follows."""
    logits = np.random.default_rng(seed).normal(size=(sources, VOCAB, VOCAB, LONGEST, VOCAB)) * 2
    logits[..., BEGIN] = -1e6
    return np.asarray(jax.nn.log_softmax(logits), np.float32)


def search(log_probs: np.ndarray, settings: SearchSettings) -> Hypotheses:
    """The search where a token depends on the last two and its position."""
    return compiled(len(log_probs), settings)(jnp.asarray(log_probs))


@functools.cache
def compiled(sources: int, settings: SearchSettings) -> Callable[[jax.Array], Hypotheses]:
    """The search as a function of the log-probabilities.

    The cache holds every token that was written, and is checked: the slots that a hypothesis sees
    must hold its own tokens.
    """
    owners, limits = jnp.arange(sources)[:, None], jnp.full(sources, LONGEST)

    def room(tokens, cache):
        cache = jnp.zeros((sources, 0, settings.beam), int) if cache is None else cache
        return jnp.pad(cache, ((0, 0), (0, tokens - cache.shape[1]), (0, 0)))

    def whole(log_probs):
        def decode(tokens, cache, position, seen):
            cache = jax.lax.dynamic_update_slice(cache, tokens[:, None], (0, position, 0))
            history = jnp.sum(jnp.where(seen, cache[:, None], 0), axis=-1)  # [B,K,T]
            before = jnp.maximum(position - 1, 0)
            previous = jnp.where(position == 0, BEGIN, history[..., before])
            is_own = (history[..., position] == tokens) & (jnp.sum(seen, -1) <= 1).all(-1)
            # What follows depends on both of the last two tokens, so a wrong history shows.
            logits = log_probs[owners, tokens, previous, position]
            return jnp.where(is_own[..., None], logits, jnp.nan), cache

        return beam_search(decode, room, sources, (BEGIN, END), limits, settings)

    # Two tokens first, so that room is made once more.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("albert_jax.tasks.search._FIRST_ROOM", 2)
        example = jnp.zeros((sources, VOCAB, VOCAB, LONGEST, VOCAB))
        return jax.jit(whole).lower(example).compile()


def all_translations(log_probs: np.ndarray, settings: SearchSettings) -> list[tuple[float, list]]:
    """Every translation of one source with its score, best first."""
    found = []
    for length in range(1, LONGEST + 1):
        for words in itertools.product(WORDS, repeat=length - 1):
            ends = [END] if length < LONGEST else [END, *WORDS]
            for last in ends:
                ids = [*words, last]
                history = [BEGIN, BEGIN, *ids]
                total = sum(
                    log_probs[history[t + 1], history[t], t, ids[t]] for t in range(length)
                )
                found.append((float(total / settings.divisor(length)), ids))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", ["length", pytest.param("gnmt", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "power", [1.0, *(pytest.param(p, marks=pytest.mark.slow) for p in (0, 2))]
)
def test_a_beam_that_holds_everything_finds_what_brute_force_finds(power, penalty):
    beam = 128  # never full, so that nothing ends early
    settings = SearchSettings(beam, LONGEST, power, penalty)
    log_probs = table(seed=int(power))
    found = search(log_probs, settings)
    for source in range(len(log_probs)):
        expected = all_translations(log_probs[source], settings)
        scores = np.asarray(found.scores[source])
        there = int((scores > -1000).sum())  # the others hold [CLS]
        assert there == len(expected)
        np.testing.assert_allclose(scores[:there], [s for s, _ in expected], rtol=1e-5)
        for k, (_, ids) in enumerate(expected[:5]):
            got = found.ids[source, k].tolist()
            assert got == ids + [END] * (LONGEST - len(ids))


def test_a_beam_of_one_is_greedy():
    for seed in range(20):
        log_probs = table(seed)
        found = search(log_probs, SearchSettings(1, LONGEST))
        for source in range(len(log_probs)):
            before, last, ids = BEGIN, BEGIN, []
            for t in range(LONGEST):
                best = int(np.argmax(log_probs[source, last, before, t]))
                before, last = last, best
                ids.append(last)
                if last == END:
                    break
            assert found.ids[source, 0].tolist() == ids + [END] * (LONGEST - len(ids))


def test_scores_are_of_the_translations_they_stand_beside():
    settings = SearchSettings(3, LONGEST, 0.6, "gnmt")
    for seed in range(10):
        log_probs = table(seed)
        found = search(log_probs, settings)
        for source in range(len(log_probs)):
            known = {
                tuple(ids): score for score, ids in all_translations(log_probs[source], settings)
            }
            assert np.all(np.diff(found.scores[source]) <= 0)
            for ids, score in zip(found.ids[source].tolist(), found.scores[source], strict=True):
                if score > NONE_FOUND:
                    ids = ids[: ids.index(END) + 1] if END in ids else ids
                    assert math.isclose(known[tuple(ids)], score, rel_tol=1e-5)


def test_a_source_does_not_depend_on_the_others():
    settings = SearchSettings(3, LONGEST)
    for seed in range(5):
        log_probs = table(seed, sources=4)
        together = search(log_probs, settings)
        for source in range(4):
            alone = search(log_probs[source : source + 1], settings)
            np.testing.assert_array_equal(together.ids[source], alone.ids[0])
            np.testing.assert_array_equal(together.scores[source], alone.scores[0])
