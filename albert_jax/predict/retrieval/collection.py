"""Answers from a collection of documents, and how good they are."""

import math
import time
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.predict.results import Answered
from albert_jax.predict.retrieval.documents import Passage
from albert_jax.predict.retrieval.index import Index
from albert_jax.tasks.examples import NOT_FOUND, QuestionExample
from albert_jax.tasks.question_answering import QuestionAnswering
from albert_jax.tasks.squad_metrics import best_null_threshold, squad_metrics

DEPTHS = (1, 5, 20)  # numbers of passages for which recall is measured
# Answers of a passage: the probability of one must not depend on how many are shown.
_ALL = 1 << 30


class CollectionAnswer(NamedTuple):
    """An answer from a collection, with its place; "" and no place if there is no answer.

    Attributes:
      text: the answer.
      probability: among all answers considered, and no answer.
      score: log odds (nats) against no answer, as `Answered.score`.
      document: the document's name.
      start: the answer's first character in the document's text.
      end: the character after its last.
      passage: the text of the passage in which the model read it.
      retrieval_score: of this passage.
      number: the document's number, from 0; -1 for no answer.
    """

    text: str
    probability: float
    score: float
    document: str
    start: int
    end: int
    passage: str
    retrieval_score: float
    number: int


_NO_ANSWER = CollectionAnswer("", 1.0, 0.0, "", 0, 0, "", 0.0, -1)


class Collection:
    """Documents and a model that reads them.

    Attributes:
      index: the documents' passages.
    """

    def __init__(self, index: Index, model: FinetunedModel):
        """Combines the two.

        Raises:
          ValueError: if the model does not answer questions.
        """
        if model.kind != QuestionAnswering.kind or not isinstance(model.task, QuestionAnswering):
            raise ValueError(
                f"this model is for {model.kind}, not for {QuestionAnswering.kind}; fine-tune one "
                "with finetune/squad_v2"
            )
        self.index, self._model = index, model
        self._always_answers = not model.task.may_be_unanswerable

    def search(self, question: str, top_k: int = 10) -> list[Passage]:
        """Returns the passages that fit a question, the best first; see `Index.search`."""
        return self.index.search(question, top_k)

    def answer(
        self,
        question: str,
        top_k: int = 5,
        passages: int = 20,
        retrieval_weight: float = 0.0,
        null_threshold: float = 0.0,
    ) -> list[CollectionAnswer]:
        """Returns the most likely answers to a question, best first; "" means no answer.

        An answer in two overlapping passages counts once. If no passage is found, there is no
        answer.

        Args:
          question: the question.
          top_k: how many answers to return.
          passages: how many passages to read.
          retrieval_weight: how many nats an answer loses for each point by which its passage's
            score is below the best passage's.
          null_threshold: the log odds (nats) of no answer against the best one above which there
            is none, beyond the model's own threshold, which is for single passages;
            `evaluate_collection` returns the best.

        Raises:
          ValueError: if the question is blank, or a number is not in its range.
        """
        if top_k < 1:
            raise ValueError(f"top_k={top_k} must be at least 1")
        if passages < 1:
            raise ValueError(f"passages={passages} must be at least 1")
        if not 0 <= retrieval_weight < math.inf:
            raise ValueError(f"retrieval_weight={retrieval_weight} must be a number from 0")
        if not math.isfinite(null_threshold):
            raise ValueError(f"null_threshold={null_threshold} must be a finite number")
        if null_threshold and self._always_answers:
            raise ValueError(
                f"null_threshold={null_threshold}: this model always answers; leave it out, or "
                "fine-tune with finetune/squad_v2"
            )
        found = self.search(question, passages)
        if not found:
            return [_NO_ANSWER]
        contexts = [passage.text for passage in found]
        read = self._model.answer_batch([question] * len(found), contexts, _ALL)
        return _ranked(found, read, retrieval_weight, null_threshold)[:top_k]


def open_collection(
    index: str | PathLike, model: FinetunedModel, embedder: FinetunedModel | None = None
) -> Collection:
    """Opens an index that `build_index` wrote, to be read by a model.

    Raises:
      FileNotFoundError: as `Index`.
      ValueError: as `Index`, or if the model does not answer questions.
    """
    return Collection(Index(Path(index), embedder), model)


def _ranked(
    found: Sequence[Passage],
    read: Sequence[Sequence[Answered]],
    retrieval_weight: float,
    null_threshold: float,
) -> list[CollectionAnswer]:
    """Returns the distinct answers of all passages, the most likely first."""
    best: dict[tuple[int, int, int], CollectionAnswer] = {}
    for passage, answers in zip(found, read, strict=True):
        change = null_threshold - retrieval_weight * (found[0].score - passage.score)
        for a in answers:
            if not a.text:
                best[_NO_ANSWER.number, 0, 0] = _NO_ANSWER
                continue
            start, end = passage.start + a.start, passage.start + a.end
            answer = CollectionAnswer(
                a.text, 0.0, a.score + change, passage.document, start, end,
                passage.text, passage.score, passage.number,
            )  # fmt: skip
            place = passage.number, start, end
            best[place] = max(best.get(place, answer), answer, key=lambda one: one.score)
    ordered = sorted(best.values(), key=lambda one: -one.score)
    probabilities = softmax(np.array([one.score for one in ordered])).tolist()
    return [one._replace(probability=p) for one, p in zip(ordered, probabilities, strict=True)]


def evaluate_collection(
    collection: Collection,
    examples: Sequence[QuestionExample],
    top_k: int = 5,
    passages: int = 20,
    retrieval_weight: float = 0.0,
    null_threshold: float = 0.0,
    told: Callable[[QuestionExample, list[CollectionAnswer]], None] | None = None,
) -> dict[str, float]:
    """Returns how well questions are answered, and seconds per question.

    Args:
      collection: the documents and the model.
      examples: questions with their gold answers.
      top_k: how many answers `told` gets.
      passages: how many passages to read.
      retrieval_weight: as for `Collection.answer`.
      null_threshold: as for `Collection.answer`.
      told: gets each question with its answers.

    Returns:
      The metrics of `squad_metrics`, those of `recall`, seconds, and, if the model may find no
      answer, the `null_threshold` for which F1 is best.

    Raises:
      ValueError: if there are no questions, or as `Collection.answer`.
    """
    texts, odds, seconds = {}, {}, 0.0
    for example in examples:
        start = time.perf_counter()
        answers = collection.answer(
            example.question, _ALL, passages, retrieval_weight, null_threshold
        )
        seconds += time.perf_counter() - start
        if told:
            told(example, answers[:top_k])
        spans = [answer for answer in answers if answer.text]
        texts[example.id] = spans[0].text if spans else ""
        if len(spans) < len(answers):
            odds[example.id] = -spans[0].score if spans else 0.0
    # A model that always answers has no odds, unless no passage was found.
    if len(odds) == len(examples):
        metrics = squad_metrics(texts, examples, odds, 0.0)
        best = best_null_threshold(texts, examples, odds)
        metrics["null_threshold"] = null_threshold + best
    else:
        metrics = squad_metrics(texts, examples)
    return metrics | recall(collection.index, examples) | {"seconds": seconds / len(examples)}


def recall(
    index: Index, examples: Sequence[QuestionExample], depths: Sequence[int] = DEPTHS
) -> dict[str, float]:
    """Returns the shares of answerable questions for which search finds the answer.

    Args:
      index: the documents.
      examples: questions; those without gold answers are left out.
      depths: numbers of passages.

    Returns:
      For each depth, `contains@`: a gold answer's text is in one of the passages, of whatever
      document. And `gold@`: one overlaps a gold answer's place, in a document that contains the
      question's own paragraph. Nothing if no question has an answer.
    """
    ranks = [_ranks(index, e, max(depths)) for e in examples if e.answers]
    return {
        f"{name}@{k}": sum(rank[i] < k for rank in ranks) / len(ranks)
        for i, name in enumerate(("contains", "gold"))
        for k in depths
        if ranks
    }


def _ranks(index: Index, example: QuestionExample, most: int) -> tuple[float, float]:
    """Returns the ranks from 0 of the first passage of either kind; infinite if there is none."""
    found = index.search(example.question, most)
    tests = (
        lambda passage: any(answer.text in passage.text for answer in example.answers),
        lambda passage: _overlaps(index, example, passage),
    )
    ranks = [next((i for i, p in enumerate(found) if test(p)), math.inf) for test in tests]
    return ranks[0], ranks[1]


def _overlaps(index: Index, example: QuestionExample, passage: Passage) -> bool:
    """Whether a passage overlaps the place of a gold answer in the example's own paragraph."""
    # Counted in characters other than white space, because paragraphs were joined differently.
    text = index.document_text(passage.number)
    paragraph = _squeezed(text).find(_squeezed(example.context))
    if not example.context or paragraph < 0:
        return False
    begin, end = (len(_squeezed(text[:place])) for place in (passage.start, passage.end))
    for answer in example.answers:
        first = paragraph + len(_squeezed(example.context[: answer.start]))
        last = first + len(_squeezed(answer.text))
        if answer.start != NOT_FOUND and begin < last and first < end:
            return True
    return False


def _squeezed(text: str) -> str:
    return "".join(text.split())
