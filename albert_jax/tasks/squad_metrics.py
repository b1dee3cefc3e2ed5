"""SQuAD's exact match and F1, and the threshold for predicting no answer."""

import math
import re
import string
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from albert_jax.tasks.examples import QuestionExample

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_metrics(
    predictions: Mapping[str, str],
    examples: Sequence[QuestionExample],
    null_odds: Mapping[str, float] | None = None,
    threshold: float | None = None,
) -> dict[str, float]:
    """Returns exact match and F1 of answers, as in the official evaluation, as fractions.

    Each question is scored against its best gold answer. The best_ values follow the official
    script's conventions: a threshold may fall between two questions of equal odds, and 0 stands
    for never answering. `best_null_threshold` returns a threshold that can be used.

    Args:
      predictions: id -> the answer's text; "" means that there is none. With `null_odds`, the
        best text before any threshold. Ids beyond those of the examples are ignored.
      examples: the questions; one without answers is unanswerable.
      null_odds: id -> a finite number that is larger for less answerable questions (v2.0).
      threshold: a question whose odds exceed it counts as left unanswered.

    Returns:
      exact and f1. With `null_odds` also the same for the questions with (HasAns_) and without
      (NoAns_) answers, if there are any, and best_exact, best_f1 and their _threshold in the
      unit of the odds.

    Raises:
      ValueError: if there are no examples, an id has no prediction or odds, odds are not finite,
        or there is a threshold without odds.

    Source: evaluate-v2.0.py of https://rajpurkar.github.io/SQuAD-explorer/, which gives
    percentages.
    """
    if threshold is not None and null_odds is None:
        raise ValueError("a threshold needs null_odds")
    answerable = _check_ids(predictions, examples, null_odds)
    result = {}
    for name, scores in _question_scores(predictions, examples).items():
        if null_odds is None:
            result[name] = _mean(scores.values())
            continue
        final = _apply_threshold(scores, answerable, null_odds, threshold)
        result[name] = _mean(final.values())
        for prefix, wanted in (("HasAns", True), ("NoAns", False)):
            part = [score for i, score in final.items() if answerable[i] is wanted]
            if part:
                result[f"{prefix}_{name}"] = _mean(part)
        best, cut = _official_best(scores, predictions, answerable, null_odds)
        result |= {f"best_{name}": best, f"best_{name}_threshold": cut}
    return result


def best_null_threshold(
    predictions: Mapping[str, str],
    examples: Sequence[QuestionExample],
    null_odds: Mapping[str, float],
) -> float:
    """Returns the threshold for `squad_metrics` that maximizes its `f1`.

    Of thresholds with equal F1 it is the smallest, which answers the fewest questions. It is the
    odds of the last question answered, or just below all odds if none should be, so it is always
    finite.

    Args:
      predictions: id -> the best text before any threshold.
      examples: the questions of the development set.
      null_odds: id -> a finite number that is larger for less answerable questions.

    Raises:
      ValueError: for the same reasons as `squad_metrics`.
    """
    answerable = _check_ids(predictions, examples, null_odds)
    scores = _question_scores(predictions, examples)["f1"]
    order = sorted(scores, key=lambda i: null_odds[i])
    # gains[n]: how much answering the first n questions adds to the score of answering none.
    gains = np.cumsum([0.0, *(scores[i] - (not answerable[i]) for i in order)])
    odds = [null_odds[i] for i in order]
    cuts = [0, *(n for n in range(1, len(odds)) if odds[n - 1] < odds[n]), len(odds)]
    best = max(cuts, key=lambda n: gains[n])
    return float(odds[best - 1] if best else math.nextafter(odds[0], -math.inf))


def _words(text: str) -> list[str]:
    """Returns an answer's words for comparison: without case, ASCII punctuation or articles."""
    return re.sub(r"\b(?:a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _overlap(ours: list[str], gold: list[str]) -> float:
    if not ours or not gold:
        return float(ours == gold)
    same = (Counter(ours) & Counter(gold)).total()
    if not same:
        return 0.0
    # The equal 2·same/(|ours| + |gold|) would differ from the official score in the last bit.
    precision, recall = same / len(ours), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def _question_scores(
    predictions: Mapping[str, str], examples: Sequence[QuestionExample]
) -> dict[str, dict[str, float]]:
    exact, f1 = {}, {}
    for example in examples:
        ours = _words(predictions[example.id])
        # Gold answers of only articles and punctuation do not count. Without gold answers, the
        # correct answer is none.
        golds = [gold for answer in example.answers if (gold := _words(answer.text))] or [[]]
        exact[example.id] = float(ours in golds)
        f1[example.id] = max(_overlap(ours, gold) for gold in golds)
    return {"exact": exact, "f1": f1}


def _apply_threshold(
    scores: Mapping[str, float],
    answerable: Mapping[str, bool],
    null_odds: Mapping[str, float],
    threshold: float | None,
) -> dict[str, float]:
    if threshold is None:
        return dict(scores)
    return {
        i: float(not answerable[i]) if null_odds[i] > threshold else score
        for i, score in scores.items()
    }


def _official_best(
    scores: Mapping[str, float],
    predictions: Mapping[str, str],
    answerable: Mapping[str, bool],
    null_odds: Mapping[str, float],
) -> tuple[float, float]:
    # Iterates in the order of `null_odds`, so ties are sorted as in the official script.
    order = sorted((i for i in null_odds if i in scores), key=lambda i: null_odds[i])
    gains = [scores[i] if answerable[i] else -float(predictions[i] != "") for i in order]
    totals = np.cumsum([sum(not known for known in answerable.values()), *gains])
    best = int(np.argmax(totals))
    return float(totals[best]) / len(scores), float(null_odds[order[best - 1]]) if best else 0.0


def _check_ids(
    predictions: Mapping[str, str],
    examples: Sequence[QuestionExample],
    null_odds: Mapping[str, float] | None,
) -> dict[str, bool]:
    """Checks the ids and odds; returns id -> whether the question has answers."""
    if not examples:
        raise ValueError("no examples")
    for name, values in (("prediction", predictions), ("null odds", null_odds)):
        missing = [e.id for e in examples if values is not None and e.id not in values]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(examples)} questions have no {name}; the first is "
                f"{missing[0]!r}"
            )
    if null_odds is not None and not all(math.isfinite(null_odds[e.id]) for e in examples):
        raise ValueError("some null odds are not finite")
    return {example.id: bool(example.answers) for example in examples}


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values)
