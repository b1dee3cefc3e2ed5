"""Beam search for the best translations, compiled once for each shape of a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_NEVER = -1.0e9  # added to the score of what cannot be chosen; any real score is far above it
NONE_FOUND = _NEVER / 2  # scores below are of no hypothesis


class Hypotheses(NamedTuple):
    """The best translations of B sources, best first.

    Attributes:
      ids: int32 [B,K,T], tokens after [CLS]; from the first [SEP] on, all are [SEP].
      scores: float32 [B,K], log-probabilities over the length penalty; less than `NONE_FOUND`
        where fewer than K were found.
    """

    ids: jax.Array
    scores: jax.Array


class SearchSettings(NamedTuple):
    """How to search.

    Attributes:
      beam: hypotheses that are kept; 1 is greedy.
      max_tokens: longest translation, [SEP] included.
      length_penalty: a finished hypothesis' log-probability is divided by its penalty to this
        power; more prefers longer translations.
      penalty: `length`: tokens, including [SEP]; `gnmt`: (5 + tokens) / 6.
        Source: arXiv:1609.08144, equation 14.
    """

    beam: int
    max_tokens: int
    length_penalty: float = 1.0
    penalty: str = "length"

    def divisor(self, tokens: jax.Array | int) -> jax.Array:
        """Returns what the log-probability of a hypothesis with so many tokens is divided by."""
        tokens = jnp.asarray(tokens, jnp.float32)
        base = tokens if self.penalty == "length" else (5.0 + tokens) / 6.0
        return base**self.length_penalty


class _State(NamedTuple):
    step: jax.Array  # tokens written so far
    running: jax.Array  # int32 [B,K,T]
    running_scores: jax.Array  # [B,K], log-probabilities
    finished: jax.Array  # int32 [B,K,T]
    finished_scores: jax.Array  # [B,K], over the penalty; _NEVER where there is none yet
    is_done: jax.Array  # bool [B]
    cache: Any


def beam_search(
    decode: Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, Any]],
    cache: Any,
    sources: int,
    ends: tuple[jax.Array | int, jax.Array | int],
    settings: SearchSettings,
) -> Hypotheses:
    """Returns the best translations that a beam finds.

    A step extends each of a source's K hypotheses by every token and keeps the 2K best. Of the K
    best among these, those that end in [SEP] are finished; the K best of the others go on. A
    source is done when K translations are finished and its best running hypothesis, divided by
    the penalty of its present length, is not better than the worst of them. Hypotheses that reach
    `max_tokens` count as finished. These are the rules of transformers' `generate` with
    `early_stopping=False`, and its results for `penalty="length"`.

    Args:
      decode: (last tokens int32 [B·K], cache, position) -> logits [B·K,V], cache. A source's
        hypotheses are adjacent rows.
      cache: pytree whose leaves have an axis of size B·K at 1, before the first token.
      sources: B.
      ends: the ids that begin and end a translation, [CLS] and [SEP].
      settings: beam, longest translation and penalty.
    """
    B, K, T = sources, settings.beam, settings.max_tokens
    begin, end = ends
    blank = jnp.full((B, K, T), end, jnp.int32)
    first_only = jnp.where(jnp.arange(K) == 0, 0.0, _NEVER)  # the K begin the same
    start = _State(
        step=jnp.zeros((), jnp.int32),
        running=blank,
        running_scores=jnp.broadcast_to(first_only, (B, K)),
        finished=blank,
        finished_scores=jnp.full((B, K), _NEVER),
        is_done=jnp.zeros(B, bool),
        cache=cache,
    )

    def goes_on(state: _State) -> jax.Array:
        return (state.step < T) & ~jnp.all(state.is_done)

    def advance(state: _State) -> _State:
        before = jnp.maximum(state.step - 1, 0)
        last = jax.lax.dynamic_index_in_dim(state.running, before, axis=2, keepdims=False)
        tokens = jnp.where(state.step == 0, begin, last.reshape(-1))
        logits, cache = decode(tokens, state.cache, state.step)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32)).reshape(B, K, -1)
        return _choose(state, log_probs, cache, end, settings)

    state = jax.lax.while_loop(goes_on, advance, start)
    return Hypotheses(state.finished, state.finished_scores)


def _choose(
    state: _State,
    log_probs_BKV: jax.Array,
    cache: Any,
    end: jax.Array | int,
    settings: SearchSettings,
) -> _State:
    """Returns the state with one more token in every running hypothesis."""
    B, K, V = log_probs_BKV.shape
    totals = (state.running_scores[:, :, None] + log_probs_BKV).reshape(B, K * V)
    count = min(2 * K, K * V)
    scores, flat = jax.lax.top_k(totals, count)
    parents, tokens = flat // V, flat % V
    extended = jnp.take_along_axis(state.running, parents[:, :, None], axis=1)
    extended = jnp.where(
        jnp.arange(settings.max_tokens)[None, None] == state.step, tokens[:, :, None], extended
    )
    ends = (tokens == end) | (state.step + 1 == settings.max_tokens)
    # Of the 2K, those after the first K are there only so that K can go on.
    is_new = ends & (jnp.arange(count) < K)[None] & ~state.is_done[:, None]
    is_new &= scores > NONE_FOUND  # before it is divided
    new_scores = jnp.where(is_new, scores / settings.divisor(state.step + 1), _NEVER)
    merged = jnp.concatenate([state.finished_scores, new_scores], axis=1)
    finished_scores, best = jax.lax.top_k(merged, K)
    both = jnp.concatenate([state.finished, extended], axis=1)
    finished = jnp.take_along_axis(both, best[:, :, None], axis=1)

    running_scores, kept = jax.lax.top_k(jnp.where(ends, scores + _NEVER, scores), K)
    running = jnp.take_along_axis(extended, kept[:, :, None], axis=1)
    if K > 1:
        rows = jnp.arange(B)[:, None] * K + jnp.take_along_axis(parents, kept, axis=1)
        cache = jax.tree.map(lambda leaf: jnp.take(leaf, rows.reshape(-1), axis=1), cache)
    best_running = running_scores[:, 0] / settings.divisor(state.step + 1)
    return _State(
        step=state.step + 1,
        running=running,
        running_scores=running_scores,
        finished=finished,
        finished_scores=finished_scores,
        is_done=state.is_done | (best_running <= finished_scores[:, -1]),
        cache=cache,
    )
