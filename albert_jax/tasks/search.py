"""Beam search for the best translations, compiled once for each shape of a batch."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_NEVER = -1.0e9  # added to the score of what cannot be chosen; any real score is far above it
_FIRST_ROOM = 16  # tokens; doubled as often as needed
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
      max_tokens: longest translation of any source, [SEP] included.
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
    slots: jax.Array  # int32 [B,K,T], who wrote each token of a hypothesis into the cache
    cache: Any


def beam_search(
    decode: Callable[[jax.Array, Any, jax.Array, jax.Array], tuple[jax.Array, Any]],
    room: Callable[[int, Any], Any],
    sources: int,
    ends: tuple[jax.Array | int, jax.Array | int],
    limits_B: jax.Array,
    settings: SearchSettings,
) -> Hypotheses:
    """Returns the best translations that a beam finds.

    A step extends each of a source's K hypotheses by every token and keeps the 2K best. Of the K
    best among these, those that end in [SEP] are finished; the K best of the others go on. A
    source is done when K translations are finished and its best running hypothesis, divided by
    the penalty of its present length, is not better than the worst of them. Hypotheses that reach
    their source's limit count as finished. These are the rules of transformers' `generate` with
    `early_stopping=False`, and its results for `penalty="length"`.

    Args:
      decode: (last tokens int32 [B,K], cache, position, seen bool [B,K,S,K]) -> logits [B,K,V],
        cache. Hypothesis k writes into slot k of the cache; `seen` marks the slots that hold its
        own tokens, so that nothing is moved when another hypothesis is continued in its place.
      room: (S, cache) -> the cache with room for S tokens of each hypothesis; a new one for None.
        Room is made as translations grow, since a step reads all of it.
      sources: B.
      ends: the ids that begin and end a translation, [CLS] and [SEP].
      limits_B: int32, the longest translation of each source, at most `max_tokens`.
      settings: beam, longest translation and penalty.
    """
    K, T = settings.beam, settings.max_tokens
    begin, end = ends

    def advance(state: _State, S: int) -> _State:
        before = jnp.maximum(state.step - 1, 0)
        last = jax.lax.dynamic_index_in_dim(state.running, before, axis=2, keepdims=False)
        tokens = jnp.where(state.step == 0, begin, last)
        seen = state.slots[:, :, :S, None] == jnp.arange(K)[None, None, None]
        seen &= (jnp.arange(S) <= state.step)[None, None, :, None]
        logits, cache = decode(tokens, state.cache, state.step, seen)
        log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
        return _choose(state, log_probs, cache, (end, limits_B), settings)

    state, S = _start((sources, K, T), end), 0
    while S < T:
        S = min(2 * S or _FIRST_ROOM, T)
        state = jax.lax.while_loop(
            partial(_goes_on, S),
            partial(advance, S=S),
            state._replace(cache=room(S, state.cache)),
        )
    return Hypotheses(state.finished, state.finished_scores)


def _start(shape: tuple[int, int, int], end: jax.Array | int) -> _State:
    """Returns the state before the first token, of shape [B,K,T]."""
    B, K, _ = shape
    blank = jnp.full(shape, end, jnp.int32)
    first_only = jnp.where(jnp.arange(K) == 0, 0.0, _NEVER)  # the K begin the same
    return _State(
        step=jnp.zeros((), jnp.int32),
        running=blank,
        running_scores=jnp.broadcast_to(first_only, (B, K)),
        finished=blank,
        finished_scores=jnp.full((B, K), _NEVER),
        is_done=jnp.zeros(B, bool),
        slots=jnp.broadcast_to(jnp.arange(K)[None, :, None], shape),
        cache=None,
    )


def _goes_on(limit: int, state: _State) -> jax.Array:
    return (state.step < limit) & ~jnp.all(state.is_done)


def _choose(
    state: _State,
    log_probs_BKV: jax.Array,
    cache: Any,
    ends: tuple[jax.Array | int, jax.Array],
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
    end, limits_B = ends
    is_last = state.step + 1 >= limits_B
    is_end = (tokens == end) | is_last[:, None]
    # Of the 2K, those after the first K are there only so that K can go on.
    is_new = is_end & (jnp.arange(count) < K)[None] & ~state.is_done[:, None]
    is_new &= scores > NONE_FOUND  # before it is divided
    new_scores = jnp.where(is_new, scores / settings.divisor(state.step + 1), _NEVER)
    merged = jnp.concatenate([state.finished_scores, new_scores], axis=1)
    finished_scores, best = jax.lax.top_k(merged, K)
    both = jnp.concatenate([state.finished, extended], axis=1)
    finished = jnp.take_along_axis(both, best[:, :, None], axis=1)

    running_scores, kept = jax.lax.top_k(jnp.where(is_end, scores + _NEVER, scores), K)
    running = jnp.take_along_axis(extended, kept[:, :, None], axis=1)
    parents = jnp.take_along_axis(parents, kept, axis=1)
    slots = jnp.take_along_axis(state.slots, parents[:, :, None], axis=1)
    is_written = (jnp.arange(settings.max_tokens) <= state.step)[None, None]
    slots = jnp.where(is_written, slots, jnp.arange(K)[None, :, None])
    best_running = running_scores[:, 0] / settings.divisor(state.step + 1)
    return _State(
        step=state.step + 1,
        running=running,
        running_scores=running_scores,
        finished=finished,
        finished_scores=finished_scores,
        is_done=state.is_done | is_last | (best_running <= finished_scores[:, -1]),
        slots=slots,
        cache=cache,
    )
