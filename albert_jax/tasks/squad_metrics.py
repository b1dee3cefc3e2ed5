"""Exact match and F1 of the answers to SQuAD's questions, and the threshold for having none."""

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
    """Exact match and F1 of answers, by the official evaluation, as fractions.

    Each question counts its best gold answer. The best_ values keep the official script's ways:
    a threshold between two questions of equal odds counts as possible, and 0 stands for never
    answering. `best_null_threshold` gives one that can be used.

    Args:
      predictions: by id, the answer's text; "" says that there is none. With `null_odds`, the
        best text before any threshold. More ids than the examples' do no harm.
      examples: the questions; one without answers is unanswerable.
      null_odds: by id, larger for less answerable, finite (v2.0).
      threshold: where the odds are above it, the question counts as left unanswered.

    Returns:
      exact and f1; with `null_odds` also the same of the questions with (HasAns_) and without
      (NoAns_) answers, where there are some, best_exact, best_f1 and their _threshold in the
      unit of the odds.

    Raises:
      ValueError: no examples, an id without prediction or odds, odds that are not finite, a
        threshold without odds.

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
    """The threshold that, given to `squad_metrics`, makes its `f1` largest.

    Of thresholds with equal F1 it is the smallest, which answers least. It is the odds of the
    last question answered, or just below all odds if none should be, so it is always finite.

    Args:
      predictions: by id, the best text before any threshold.
      examples: the questions of the development set.
      null_odds: by id, larger for less answerable; finite.

    Raises:
      ValueError: as `squad_metrics` does.
    """
    answerable = _check_ids(predictions, examples, null_odds)
    scores = _question_scores(predictions, examples)["f1"]
    order = sorted(scores, key=lambda i: null_odds[i])
    # What answering the first n questions adds to answering none.
    gains = np.cumsum([0.0, *(scores[i] - (not answerable[i]) for i in order)])
    odds = [null_odds[i] for i in order]
    cuts = [0, *(n for n in range(1, len(odds)) if odds[n - 1] < odds[n]), len(odds)]
    best = max(cuts, key=lambda n: gains[n])
    return float(odds[best - 1] if best else math.nextafter(odds[0], -math.inf))


def _words(text: str) -> list[str]:
    """What of an answer is compared: no case, ASCII punctuation or articles."""
    return re.sub(r"\b(?:a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def _overlap(ours: list[str], gold: list[str]) -> float:
    if not ours or not gold:
        return float(ours == gold)
    same = (Counter(ours) & Counter(gold)).total()
    if not same:
        return 0.0
    # Not 2·same/(|ours| + |gold|): the last bit would differ from the official score's.
    precision, recall = same / len(ours), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def _question_scores(
    predictions: Mapping[str, str], examples: Sequence[QuestionExample]
) -> dict[str, dict[str, float]]:
    exact, f1 = {}, {}
    for example in examples:
        ours = _words(predictions[example.id])
        # A gold answer of articles and punctuation only does not count; without gold, none is it.
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
    # In the odds' own order where they are equal, as the official script sorts them.
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
    """By id, whether the question has answers."""
    if not examples:
        raise ValueError("no examples")
    for name, values in (("prediction", predictions), ("null odds", null_odds)):
        missing = [e.id for e in examples if values is not None and e.id not in values]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(examples)} questions have no {name}, first {missing[0]!r}"
            )
    if null_odds is not None and not all(math.isfinite(null_odds[e.id]) for e in examples):
        raise ValueError("null odds that are not finite")
    return {example.id: bool(example.answers) for example in examples}


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values)
