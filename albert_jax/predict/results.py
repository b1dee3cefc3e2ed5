"""What a fine-tuned model's outputs mean: classes, answers, tags, choices."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from albert_jax.tasks.examples import ChoiceExample, QuestionExample, TaggedExample
from albert_jax.tasks.features import Features
from albert_jax.tasks.finetuning import Outputs
from albert_jax.tasks.question_answering import Found, QuestionAnswering, null_threshold, text_of


class Classified(NamedTuple):
    """The most likely class of a text and the probability of each class; or a regression score."""

    label: str | float
    probabilities: dict[str, float]


class Answered(NamedTuple):
    """An answer, a span of the context ("" for none), with its position and probability.

    Attributes:
      text: the answer.
      start: its first character in the context.
      end: the character after its last.
      probability: among the answers considered, and no answer.
      score: log odds (nats) against no answer, as the threshold of the development set counts
        it, so that 0 is on the edge; comparable between contexts. For models that always answer,
        the sum of the two logits.
    """

    text: str
    start: int
    end: int
    probability: float
    score: float


class Tagged(NamedTuple):
    """A word with its tag and the tag's probability."""

    word: str
    tag: str
    probability: float


class Chosen(NamedTuple):
    """The most likely option, its number from 0, and the probability of each option.

    Attributes:
      option: the most likely.
      index: its number.
      probabilities: of all options.
      cut: whether the context or an option was cut, because together they are longer than the
        model takes.
    """

    option: str
    index: int
    probabilities: list[float]
    cut: bool = False


def classified(outputs: Outputs, labels: Sequence[str]) -> list[Classified]:
    """Returns the class of each row, or its score where there are no labels."""
    if not labels:
        return [Classified(float(output["logits"][0]), {}) for output in outputs]
    found = []
    for output in outputs:
        probabilities = softmax(output["logits"])
        named = dict(zip(labels, probabilities.tolist(), strict=True))
        found.append(Classified(labels[int(np.argmax(probabilities))], named))
    return found


def answered(
    task: QuestionAnswering,
    outputs: Outputs,
    features: Features,
    examples: Sequence[QuestionExample],
    validation: Mapping[str, float],
    top_k: int,
) -> list[list[Answered]]:
    """Returns the `top_k` most likely answers to each question, best first.

    Raises:
      ValueError: if no token of a context can be an answer.
    """
    threshold = null_threshold(validation)
    found = task.predictions(outputs, features, len(examples))
    return [
        _ranked(task, one, example, threshold)[:top_k]
        for one, example in zip(found, examples, strict=True)
    ]


def _ranked(
    task: QuestionAnswering, found: Found, example: QuestionExample, threshold: float
) -> list[Answered]:
    null = 0.0
    if task.may_be_unanswerable:
        best = found.spans[0].score if found.spans else 0.0
        null = best + found.null_odds - threshold
    answers: dict[tuple[int, int], Answered] = {}
    for span in found.spans:
        # A token may stand for white space alone, which is neither an answer nor part of one.
        if text := text_of(example, span):
            begin = example.context.index(text, span.begin)
            answer = Answered(text, begin, begin + len(text), 0.0, span.score - null)
            answers.setdefault((answer.start, answer.end), answer)
    scored = list(answers.values())
    if task.may_be_unanswerable:
        scored.append(Answered("", 0, 0, 0.0, 0.0))
    if not scored:
        raise ValueError(f"no token of the context {example.context!r} can be an answer")
    probabilities = softmax(np.array([a.score for a in scored])).tolist()
    named = [a._replace(probability=p) for a, p in zip(scored, probabilities, strict=True)]
    return sorted(named, key=lambda a: -a.probability)


def tagged(
    outputs: Outputs, features: Features, examples: Sequence[TaggedExample], labels: Sequence[str]
) -> list[list[Tagged]]:
    """Returns the tag of each word of each sentence."""
    found: list[dict[int, Tagged]] = [{} for _ in examples]
    for output, row, owner in zip(outputs, features.rows, features.owners, strict=True):
        for slot in np.flatnonzero(row["words"] >= 0):
            log_probs_K = output["log_probs"][slot]
            k, word = int(np.argmax(log_probs_K)), int(row["words"][slot])
            name = examples[owner].words[word]
            found[owner][word] = Tagged(name, labels[k], float(np.exp(log_probs_K[k])))
    return [[words[i] for i in sorted(words)] for words in found]


def chosen(outputs: Outputs, examples: Sequence[ChoiceExample]) -> list[Chosen]:
    """Returns the best option of each question."""
    found = []
    for output, example in zip(outputs, examples, strict=True):
        probabilities = softmax(output["logits"])
        best = int(np.argmax(probabilities))
        found.append(Chosen(example.options[best], best, probabilities.tolist()))
    return found
