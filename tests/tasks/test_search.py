"""Beam search against all translations that there are, and against greedy choice."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.tasks.search import NONE_FOUND, Hypotheses, SearchSettings, beam_search

BEGIN, END, WORDS, LONGEST = 0, 1, (2, 3), 4
VOCAB = 4


def table(seed: int, sources: int = 3) -> np.ndarray:
    """Log-probabilities [B, last token, position, next token]; [CLS] never follows."""
    logits = np.random.default_rng(seed).normal(size=(sources, VOCAB, LONGEST, VOCAB)) * 2
    logits[..., BEGIN] = -1e6
    return np.asarray(jax.nn.log_softmax(logits), np.float32)


def search(log_probs: np.ndarray, settings: SearchSettings) -> Hypotheses:
    """The search where a token depends on the last one and its position.

    The cache holds the last token of every row, and is checked: it must follow its hypothesis.
    """
    sources = len(log_probs)
    rows = sources * settings.beam
    owners = np.repeat(np.arange(sources), settings.beam)

    def decode(tokens, cache, position):
        history = cache["history"].at[0, :, position].set(tokens)
        previous = history[0, :, jnp.maximum(position - 1, 0)]
        told = jnp.where(position == 0, True, cache["last"][0] == previous)
        logits = jnp.asarray(log_probs)[owners, tokens, position]
        logits = jnp.where(told[:, None], logits, jnp.nan)
        return logits, {"history": history, "last": tokens[None]}

    cache = {"history": jnp.zeros((1, rows, LONGEST), int), "last": jnp.zeros((1, rows), int)}
    return jax.jit(lambda: beam_search(decode, cache, sources, (BEGIN, END), settings))()


def all_translations(log_probs: np.ndarray, settings: SearchSettings) -> list[tuple[float, list]]:
    """Every translation of one source with its score, best first."""
    found = []
    for length in range(1, LONGEST + 1):
        for words in itertools.product(WORDS, repeat=length - 1):
            ends = [END] if length < LONGEST else [END, *WORDS]
            for last in ends:
                ids, before = [*words, last], [BEGIN, *words]
                total = sum(
                    log_probs[b, t, i] for t, (b, i) in enumerate(zip(before, ids, strict=False))
                )
                found.append((float(total / settings.divisor(length)), ids))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", ["length", "gnmt"])
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_a_beam_that_holds_everything_finds_what_brute_force_finds(power, penalty):
    beam = 2 * VOCAB**LONGEST  # never full, so that nothing ends early
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
            last, ids = BEGIN, []
            for t in range(LONGEST):
                last = int(np.argmax(log_probs[source, last, t]))
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
