"""Extractive question answering: answers as spans of a context, as in SQuAD."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.data.tokenizers import Tokenizer
from albert_jax.tasks.base import Batch
from albert_jax.tasks.cmrc_metrics import cmrc_metrics
from albert_jax.tasks.examples import (
    NOT_FOUND,
    Answer,
    QuestionExample,
)
from albert_jax.tasks.features import NONE, Features, join
from albert_jax.tasks.finetuning import FinetuningTask, Outputs
from albert_jax.tasks.squad_metrics import best_null_threshold, squad_metrics
from albert_jax.tasks.submissions import write_squad

LOWEST = -1e9  # the logit of positions that are not allowed


class Span(NamedTuple):
    """A candidate answer: its characters in the context, and the sum of its two logits."""

    begin: int
    end: int
    score: float


class Found(NamedTuple):
    """A model's candidate answers to a question.

    Attributes:
      spans: the best first; empty if no row has a context.
      null_odds: the score of "no answer" minus that of the best span.
    """

    spans: list[Span]
    null_odds: float


class QuestionAnswering(FinetuningTask):
    """A start and an end logit for every token; [CLS] stands for no answer.

    Attributes:
      may_be_unanswerable: whether a question may have no answer.
      measure: (id -> answer, examples) -> metrics, where every question has an answer.
    """

    kind = "question_answering"
    may_be_unanswerable: ClassVar[bool] = False
    measure: Callable[..., dict[str, float]] = staticmethod(squad_metrics)

    @property
    def num_labels(self) -> int:
        """Returns 2: a start and an end."""
        return 2

    def features(self, examples: Sequence[QuestionExample], tokenizer: Tokenizer) -> Features:
        """Returns the examples' rows: as many as it takes to cover each context."""
        c = self.config
        return question_features(examples, tokenizer, c.max_length, c.stride, c.max_question)

    def logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Returns float32 start and end logits [B,2,T], very low at positions not allowed."""
        logits_BT2 = model.span_logits(model.encode(batch, dropout_keys_B))
        may_BT = (batch["begins"] >= 0).at[:, 0].set(True)
        return jnp.where(may_BT[:, None], jnp.swapaxes(logits_BT2, 1, 2), LOWEST)

    def targets(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns the answer's start and end [B,2], each with the row's weight."""
        labels_B2 = jnp.stack([batch["start"], batch["end"]], axis=1)
        return labels_B2, jnp.broadcast_to(batch["weights"][:, None], labels_B2.shape)

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns the logits."""
        return {"logits": self.logits(model, batch, None)}

    def predictions(self, outputs: Outputs, features: Features, count: int) -> list[Found]:
        """Returns the best spans of each question over all of its rows."""
        spans: list[list[Span]] = [[] for _ in range(count)]
        null = np.full(count, np.inf)
        for output, row, owner in zip(outputs, features.rows, features.owners, strict=True):
            start_T, end_T = output["logits"]
            null[owner] = min(null[owner], start_T[0] + end_T[0])
            spans[owner] += self._best_spans(row, start_T, end_T)
        found = []
        for candidates, null_score in zip(spans, null, strict=True):
            ordered = _distinct(sorted(candidates, key=lambda s: -s.score))[: self.config.n_best]
            best = ordered[0].score if ordered else LOWEST
            found.append(Found(ordered, float(null_score - best)))
        return found

    def texts(
        self, found: Sequence[Found], examples: Sequence[QuestionExample], threshold: float
    ) -> dict[str, str]:
        """Returns id -> the best answer; "" if the null odds exceed the threshold."""
        answers = {}
        for example, candidates in zip(examples, found, strict=True):
            is_null = self.may_be_unanswerable and candidates.null_odds > threshold
            answers[example.id] = (
                "" if is_null or not candidates.spans else text_of(example, candidates.spans[0])
            )
        return answers

    def score(
        self,
        outputs: Outputs,
        features: Features,
        examples: Sequence[QuestionExample],
        validation: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """Returns exact match and F1; for v2.0 at the best null threshold, or `validation`'s."""
        found = self.predictions(outputs, features, len(examples))
        texts = self.texts(found, examples, np.inf)
        if not self.may_be_unanswerable:
            return self.measure(texts, examples)
        odds = _null_odds(found, examples)
        if validation is not None:
            return squad_metrics(texts, examples, odds, null_threshold(validation))
        threshold = best_null_threshold(texts, examples, odds)
        metrics = squad_metrics(texts, examples, odds, threshold)
        return metrics | {"null_threshold": threshold}

    def has_labels(self, examples: Sequence[QuestionExample]) -> bool:
        """Returns whether the questions have answers; in v2.0, some may have none."""
        has_answers = [bool(example.answers) for example in examples]
        return any(has_answers) if self.may_be_unanswerable else all(has_answers)

    def write(
        self,
        output: Path,
        split: str,
        examples: Sequence[QuestionExample],
        outputs: Outputs,
        features: Features,
        validation: Mapping[str, float],
    ) -> None:
        """Writes answers, n-best lists and null odds for the official evaluation script."""
        del split  # the official files have one name
        found = self.predictions(outputs, features, len(examples))
        nbest = {
            e.id: [{"text": text_of(e, span), "score": span.score} for span in f.spans]
            for e, f in zip(examples, found, strict=True)
        }
        texts = self.texts(found, examples, null_threshold(validation))
        odds = _null_odds(found, examples) if self.may_be_unanswerable else None
        write_squad(output, texts, nbest, odds)

    def _best_spans(self, row: Mapping[str, np.ndarray], start_T: Any, end_T: Any) -> list[Span]:
        slots = np.flatnonzero(row["begins"] >= 0)
        if not slots.size:
            return []
        scores = start_T[slots][:, None] + end_T[slots][None]
        length = slots[None] - slots[:, None]
        scores = np.where((length >= 0) & (length < self.config.max_answer), scores, -np.inf)
        count = min(self.config.n_best, int(np.isfinite(scores).sum()))
        best = np.argsort(-scores, axis=None, kind="stable")[:count]
        starts, ends = np.unravel_index(best, scores.shape)
        return [
            Span(int(row["begins"][slots[s]]), int(row["ends"][slots[e]]), float(scores[s, e]))
            for s, e in zip(starts, ends, strict=True)
        ]


class QuestionAnsweringByCharacters(QuestionAnswering):
    """Question answering in Chinese, scored as CMRC 2018 does."""

    measure = staticmethod(cmrc_metrics)


class QuestionAnsweringWithNull(QuestionAnswering):
    """Question answering in which the context may hold no answer: SQuAD 2.0."""

    may_be_unanswerable = True


def null_threshold(validation: Mapping[str, float]) -> float:
    """Returns the null odds above which a question counts as unanswerable, tuned on validation."""
    return validation.get("null_threshold", 0.0)


def _null_odds(found: Sequence[Found], examples: Sequence[QuestionExample]) -> dict[str, float]:
    return {e.id: f.null_odds for e, f in zip(examples, found, strict=True)}


def text_of(example: QuestionExample, span: Span) -> str:
    """Returns the text of a span."""
    return example.context[span.begin : span.end].strip()


def _distinct(spans: Sequence[Span]) -> list[Span]:
    """Returns the spans without duplicates (from other rows) of better ones."""
    seen: dict[tuple[int, int], Span] = {}
    for span in spans:
        seen.setdefault((span.begin, span.end), span)
    return list(seen.values())


def question_features(
    examples: Sequence[QuestionExample],
    tokenizer: Tokenizer,
    max_length: int,
    stride: int,
    max_question: int,
) -> Features:
    """Returns rows `[CLS] question [SEP] part of the context [SEP]`.

    The parts of a long context overlap.
    `begins` and `ends` are the characters of the context that a token stands for; a token of
    white space alone has none, because an answer cannot end there. `start` and `end` are the
    positions of the first and the last token of the first answer with a known place. Both are 0,
    [CLS], if that answer is not entirely in the row or there is none.

    Raises:
      ValueError: if a question leaves no room for a token of its context.

    Source: google-research/albert squad_utils.py, convert_examples_to_features.
    """
    rows, owners, cut, lost = [], [], 0, 0
    # Consecutive questions share a context, so the last encoding is cached.
    encode = functools.lru_cache(maxsize=1)(tokenizer.encode_with_offsets)
    questions = tokenizer.encode_batch([e.question for e in examples])
    for i, (example, question) in enumerate(zip(examples, questions, strict=True)):
        cut += len(question) > max_question
        question = question[:max_question]
        room = max_length - 3 - len(question)
        if room < 1:
            raise ValueError(
                f"task.max_length={max_length} leaves no room for the context next to question "
                f"{example.id!r} of {len(question)} tokens; make it larger than "
                f"task.max_question={max_question} + 3"
            )
        ids, offsets = encode(example.context)
        places = np.array(
            [o if example.context[slice(*o)].strip() else (NONE, NONE) for o in offsets], np.int32
        )
        places = places.reshape(-1, 2).T
        answer = _locate(example.answers, *places)
        lost += bool(example.answers) and answer is None
        for first in _window_starts(len(ids), room, stride):
            row, _ = join(tokenizer.special, question, ids[first : first + room], max_length)
            part, slot = places[:, first : first + room], len(question) + 2
            begins, ends = np.full((2, len(row["input_ids"])), NONE, np.int32)
            begins[slot:-1], ends[slot:-1] = part
            start, end = _slots(answer, range(first, first + room), slot)
            row |= {"begins": begins, "ends": ends}
            row |= {"start": np.array(start, np.int32), "end": np.array(end, np.int32)}
            rows.append(row)
            owners.append(i)
    notes = {"questions cut": cut, "answers not found": lost}
    return Features(rows, np.array(owners, np.int64), notes)


def _window_starts(length: int, room: int, stride: int) -> range:
    """Returns the starts of windows of `room` tokens, every `stride`; the last reaches the end."""
    step = min(stride, room)  # a longer stride would skip tokens between two windows
    return range(0, max(length - room + step, 1), step)


def _locate(
    answers: Sequence[Answer], begins: np.ndarray, ends: np.ndarray
) -> tuple[int, int] | None:
    """Returns the first and the last of a context's tokens that have a character of the answer."""
    for answer in answers:
        if answer.start != NOT_FOUND:
            inside = (begins < answer.start + len(answer.text)) & (ends > answer.start)
            pieces = np.flatnonzero(inside)
            return (int(pieces[0]), int(pieces[-1])) if pieces.size else None
    return None


def _slots(answer: tuple[int, int] | None, window: range, slot: int) -> tuple[int, int]:
    """Returns an answer's positions in the row of a window that starts at `slot`, or (0, 0)."""
    if answer is None or answer[0] not in window or answer[1] not in window:
        return 0, 0
    return slot + window.index(answer[0]), slot + window.index(answer[1])
