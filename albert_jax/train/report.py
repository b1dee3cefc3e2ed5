"""The report printed at the end of a run."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from albert_jax.config import DataConfig
from albert_jax.data.row_reader import open_rows, read_manifest
from albert_jax.data.scripts import is_within_word
from albert_jax.data.sentence_pairs import RowSource, StoredRow
from albert_jax.data.tokenizers import Tokenizer
from albert_jax.predict.load import load
from albert_jax.predict.pretrained import PretrainedModel
from albert_jax.tasks.ngram_baseline import ngram_baseline
from albert_jax.train.curves import CURVES_FILE, METRICS_FILE, read_metrics
from albert_jax.train.experiment import Experiment

_MASKS, _PAIRS, _CANDIDATES = 5, 2, 5
_LENGTHS = range(10, 31)  # of sentences shown, in tokens
_MOSTLY_WORDS = 0.9  # the fraction of a sentence's tokens that are letters; less is often code
# The most frequent tokens are mostly function words, which a model guesses without understanding.
# SentencePiece numbers tokens by frequency.
_FUNCTION_WORDS = 150
_CHEAP = 10_000_000  # tokens that are counted in half a minute
_MOST_ROWS = 100  # read for one sentence

_Found = TypeVar("_Found")


def cloze(rows: RowSource, tokenizer: Tokenizer, count: int) -> list[tuple[str, str]]:
    """Returns sentences with one content word masked, to show how a model fills it in.

    Args:
      rows: prepared rows.
      tokenizer: the rows' tokenizer.
      count: the number of sentences, each from a different row.

    Returns:
      A (text with "[MASK]", masked word) pair for each sentence.
    """

    def find(sentences: Sequence[list[int]]) -> tuple[str, str] | None:
        for ids in sentences:
            words = _content_words(tokenizer, ids)
            if len(ids) in _LENGTHS and words and _is_prose(tokenizer, ids):
                i = words[len(words) // 2]
                before, after = tokenizer.decode(ids[:i]), tokenizer.decode(ids[i + 1 :])
                return f"{before} [MASK] {after}".strip(), tokenizer.surface(ids[i])
        return None

    return list(_one_of_each_part(rows, count, find))


def neighbours(rows: RowSource, tokenizer: Tokenizer, count: int) -> list[tuple[str, str]]:
    """Returns pairs of sentences that follow each other, each pair from a different row."""

    def find(sentences: Sequence[list[int]]) -> tuple[str, str] | None:
        for first, second in itertools.pairwise(sentences):
            if all(len(ids) in _LENGTHS and _is_prose(tokenizer, ids) for ids in (first, second)):
                return tokenizer.decode(first), tokenizer.decode(second)
        return None

    return list(_one_of_each_part(rows, count, find))


def _one_of_each_part(
    rows: RowSource, count: int, find: Callable[[Sequence[list[int]]], _Found | None]
) -> Iterator[_Found]:
    """Yields what is found first in the sentences of each of `count` equal parts of the rows."""
    for part in range(count):
        first, end = (len(rows) * edge // count for edge in (part, part + 1))
        for number in range(first, min(end, first + _MOST_ROWS)):
            if (found := find(_sentences(rows[number]))) is not None:
                yield found
                break


def _sentences(row: StoredRow) -> list[list[int]]:
    """Returns a row's sentences as ids, with an empty one between chunks."""
    ends = np.cumsum(row["sentence_lengths"])
    sentences = [part.tolist() for part in np.split(row["pieces"], ends[:-1])]
    for end in np.cumsum(row["chunk_sentences"])[:-1][::-1]:
        sentences.insert(int(end), [])
    return sentences


def _content_words(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """Returns the places of whole words of four letters or more that are a single token."""
    return [
        i
        for i, (piece, after) in enumerate(itertools.pairwise(ids))
        if piece >= _FUNCTION_WORDS and _is_word(tokenizer, piece, after)
    ]


def _is_word(tokenizer: Tokenizer, piece: int, after: int) -> bool:
    """Whether a piece is a word of four letters or more, or a character of Chinese or its like."""
    text = tokenizer.surface(piece)
    if not text.isalpha():
        return False
    if not is_within_word(text):  # a script without spaces
        return True
    ends = tokenizer.has_space_before(after) or not tokenizer.surface(after)[:1].isalnum()
    return ends and tokenizer.has_space_before(piece) and len(text) >= 4


def _is_prose(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Whether a sentence is made of words and ends in punctuation."""
    letters = [tokenizer.surface(i).isalpha() for i in ids]
    return bool(letters) and not letters[-1] and sum(letters) >= _MOSTLY_WORDS * len(letters)


def report(experiment: Experiment) -> Iterator[str]:
    """Yields lines that summarize a finished run; for pretraining, with masks filled in."""
    lines = [
        m for m in read_metrics(experiment.workdir / METRICS_FILE) if m["split"] == "validation"
    ]
    if experiment.best is not None:
        name = experiment.best
        best = max(lines, key=lambda m: m[name])
        yield f"best {name} {best[name]:.4f} at step {best['step']}"
        return
    data = experiment.config.data
    yield from _losses(data, lines[-1], experiment.baselines["mlm_loss"])
    model, rows = load(experiment.workdir), open_rows(data.path, "validation")
    yield from _masks(model, rows)
    if data.sentence_objective == "sop":
        yield from _pairs(model, rows)
    if (curves := experiment.workdir / CURVES_FILE).exists():
        yield f"curves: {curves}"


def _losses(data: DataConfig, last: dict[str, Any], entropy: float) -> Iterator[str]:
    yield (
        f"held-out MLM loss {last['mlm_loss']:.3f} nats per token, "
        f"{last['mlm_accuracy']:.1%} right"
    )
    yield f"  unigram entropy {entropy:.3f} nats"
    if read_manifest(data)["pieces"]["train"] <= _CHEAP:
        counting = ngram_baseline(data)
        yield f"  counting n-grams {counting.loss:.3f} nats, {counting.accuracy:.1%} right"
    objective = data.sentence_objective
    if f"{objective}_accuracy" in last:
        yield f"held-out {objective.upper()} {last[f'{objective}_accuracy']:.1%} right, chance 50%"


def _masks(model: PretrainedModel, rows: RowSource) -> Iterator[str]:
    shown = cloze(rows, model.tokenizer, _MASKS)
    if shown:  # there may be no prose, or a script without spaces
        yield "masks of held-out sentences, each with the likeliest tokens:"
    for text, answer in shown:
        (candidates,) = model.fill_mask(text, top_k=_CANDIDATES)
        likely = ", ".join(f"{c.piece.strip('▁') or '▁'} {c.probability:.2f}" for c in candidates)
        yield f"  {text}\n    [MASK] → {likely}   (was: {answer})"


def _pairs(model: PretrainedModel, rows: RowSource) -> Iterator[str]:
    shown = neighbours(rows, model.tokenizer, _PAIRS)
    if shown:
        yield "probability that two held-out sentences are in order:"
    for first, second in shown:
        right, swapped = model.in_order([first, second], [second, first])
        yield f"  A {first}\n  B {second}\n    A before B {right:.2f}, B before A {swapped:.2f}"
