"""Benchmark metrics of predictions, as fractions of 1 or correlations; computed on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics


def text_metrics(
    names: Sequence[str], predictions: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Returns metrics of a task in which every example has one class or one score.

    If predictions or labels are all the same, all correlations are 0 by convention: they are
    0/0, for which scipy gives NaN and a warning. F1 is 0 for a class that neither occurs nor is
    predicted; the macro F1 averages over the classes that occur or are predicted.

    Args:
      names: the metrics, keys of `METRICS`; all for classes or all for scores.
      predictions: [N], classes (integers; RACE: options) or scores, in the labels' unit.
      labels: [N], the true classes or scores.

    Returns:
      Name -> value: accuracy, f1 (of class 1), macro_f1 in 0..1; matthews, pearson, spearman in
      -1..1; mean_squared_error in the squared unit of the scores.

    Raises:
      ValueError: if a metric does not exist, there is nothing to measure, shapes differ, a class
        is not an integer, or a score is not a finite number.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not a metric; choose from {', '.join(METRICS)}")
    of_scores = set(names) <= _OF_SCORES
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or labels.ndim != 1 or not labels.size:
        raise ValueError(
            "predictions and labels must both be [N] with N > 0, not "
            f"{predictions.shape} and {labels.shape}"
        )
    for array in (predictions, labels):
        if of_scores and not np.all(np.isfinite(array)):
            raise ValueError("a score is not finite")
        if not of_scores and array.dtype.kind not in "iu":
            raise ValueError(f"classes must be integers, not {array.dtype}")
    if of_scores:
        predictions, labels = predictions.astype(np.float64), labels.astype(np.float64)
    return {name: float(METRICS[name](labels, predictions)) for name in names}


def entity_metrics(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Returns precision, recall and F1 of whole entities, over all types and sentences.

    An entity is correct if its type and both its ends are. An I- tag that does not continue an
    entity of its type opens one, so IOB1 is read correctly too. A ratio with denominator 0 is 0.

    Args:
      predictions: for each sentence, the words' tags: O, B-TYPE or I-TYPE.
      labels: the true tags, of the same lengths.

    Returns:
      precision, recall and f1, in 0..1.

    Raises:
      ValueError: if there are other tags, or sentences do not match; the message gives the number.

    Source: conlleval.pl of the CoNLL-2003 shared task.
    """
    if len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} sentences predicted, but {len(labels)} labelled")
    right = predicted = there = 0
    for number, (guess, truth) in enumerate(zip(predictions, labels, strict=True)):
        if len(guess) != len(truth):
            raise ValueError(f"sentence {number}: {len(guess)} tags for {len(truth)} words")
        ours, theirs = _entities(guess), _entities(truth)
        right += len(ours & theirs)
        predicted += len(ours)
        there += len(theirs)
    return {
        "precision": right / predicted if predicted else 0.0,
        "recall": right / there if there else 0.0,
        "f1": 2 * right / (predicted + there) if right else 0.0,
    }


def _correlation(function: Callable) -> Callable:
    """Returns `function`, but with 0 if either side is constant up to rounding."""

    def correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
        if any(np.ptp(x) <= 1e-9 * np.max(np.abs(x)) for x in (labels, predictions)):
            return 0.0
        return function(labels, predictions)

    return correlation


def _f1(labels: np.ndarray, predictions: np.ndarray, average: str = "binary") -> float:
    quiet: dict[str, Any] = {"zero_division": 0.0}  # instead of a warning
    return float(sklearn_metrics.f1_score(labels, predictions, average=average, **quiet))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": lambda labels, predictions: _f1(labels == 1, predictions == 1),
    "macro_f1": lambda labels, predictions: _f1(labels, predictions, "macro"),
    "matthews": _correlation(sklearn_metrics.matthews_corrcoef),
    "pearson": _correlation(lambda labels, predictions: stats.pearsonr(labels, predictions)[0]),
    "spearman": _correlation(lambda labels, predictions: stats.spearmanr(labels, predictions)[0]),
    "mean_squared_error": sklearn_metrics.mean_squared_error,
}
_OF_SCORES = {"pearson", "spearman", "mean_squared_error"}
SMALLER_IS_BETTER = {"mean_squared_error"}


def _entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Returns (type, first word, word after the last) of every entity."""
    entities, opened, start = set(), "", 0
    for i, tag in enumerate((*tags, "O")):
        prefix, _, kind = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not kind):
            raise ValueError(f"tag {tag!r} must be O, B-TYPE or I-TYPE")
        if prefix == "I" and kind == opened:
            continue
        if opened:
            entities.add((opened, start, i))
        opened, start = kind, i
    return entities
