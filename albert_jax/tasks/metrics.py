"""What the benchmarks report of predictions, as fractions of 1 or correlations; on the host."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics

# The first of a task's metrics chooses the checkpoint. Source: GLUE's leaderboard for what is
# reported; ALBERT (https://arxiv.org/abs/1909.11942, table 9) for which of two comes first.
_METRICS = {
    "glue/cola": ("matthews",),
    "glue/sst2": ("accuracy",),
    "glue/mrpc": ("accuracy", "f1"),
    "glue/stsb": ("pearson", "spearman"),
    "glue/qqp": ("accuracy", "f1"),
    "glue/mnli": ("accuracy",),
    "glue/qnli": ("accuracy",),
    "glue/rte": ("accuracy",),
    "glue/wnli": ("accuracy",),
    "glue/ax": ("matthews",),
    "classification": ("accuracy", "macro_f1"),
    "regression": ("pearson", "spearman", "mean_squared_error"),
    "race": ("accuracy",),
    "race/middle": ("accuracy",),
    "race/high": ("accuracy",),
}
_STRUCTURED = {"squad/v1.1": "f1", "squad/v2.0": "best_f1", "conll2003": "f1"}
_SCORES = ("glue/stsb", "regression")


def main_metric(task: str) -> str:
    """The metric by which a checkpoint is chosen; larger is better.

    For SQuAD v2.0 it is the F1 at the best threshold, as ALBERT reports it, so that the answers'
    quality and the separation of the unanswerable both count.

    Raises:
      ValueError: `task` has no metrics.
    """
    if task in _STRUCTURED:
        return _STRUCTURED[task]
    return _metrics_of(task)[0]


def text_metrics(task: str, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The metrics of a task whose every example has one class or one score.

    Where predictions or labels are all the same, all correlations are 0 by convention: they are
    0/0 there, for which scipy gives NaN and a warning. F1 is 0 where a class is neither there nor
    predicted; the macro F1 averages over the classes that are one or the other.

    Args:
      task: a GLUE task, `classification`, `regression` or one of `race`.
      predictions: [N], classes (integers; RACE: options) or scores, in the labels' unit.
      labels: [N], the truth.

    Returns:
      By name: accuracy, f1 (of class 1), macro_f1 in 0..1; matthews, pearson, spearman in -1..1;
      mean_squared_error in the squared unit of the scores.

    Raises:
      ValueError: no such task; nothing to measure, shapes that differ, a class that is no
        integer, a score that is no finite number.
    """
    names = _metrics_of(task)
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape or labels.ndim != 1 or not labels.size:
        raise ValueError(f"need two [N] with N > 0, not {predictions.shape} and {labels.shape}")
    for array in (predictions, labels):
        if task in _SCORES and not np.all(np.isfinite(array)):
            raise ValueError(f"{task}: a score is not finite")
        if task not in _SCORES and array.dtype.kind not in "iu":
            raise ValueError(f"{task}: classes must be integers, not {array.dtype}")
    if task in _SCORES:
        predictions, labels = predictions.astype(np.float64), labels.astype(np.float64)
    return {name: float(_FUNCTIONS[name](labels, predictions)) for name in names}


def entity_metrics(
    predictions: Sequence[Sequence[str]], labels: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Precision, recall and F1 of whole entities, over all types and sentences.

    An entity counts if its type and both its ends are right. An I- tag that continues nothing of
    its type opens an entity, so that IOB1 is read rightly too. A ratio is 0 where nothing was
    predicted or nothing is there.

    Args:
      predictions: by sentence, the words' tags: O, B-TYPE or I-TYPE.
      labels: the truth, of the same lengths.

    Returns:
      precision, recall and f1, in 0..1.

    Raises:
      ValueError: other tags; sentences that do not match, by number.

    Source: conlleval.pl of the CoNLL-2003 shared task.
    """
    if len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} sentences predicted, {len(labels)} labelled")
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


def _metrics_of(task: str) -> tuple[str, ...]:
    if task not in _METRICS:
        raise ValueError(f"no metrics for the task {task!r}")
    return _METRICS[task]


def _correlation(function: Callable) -> Callable:
    """`function`, with 0 where one side is constant but for rounding."""

    def correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
        if any(np.ptp(x) <= 1e-9 * np.max(np.abs(x)) for x in (labels, predictions)):
            return 0.0
        return function(labels, predictions)

    return correlation


def _f1(labels: np.ndarray, predictions: np.ndarray, average: str = "binary") -> float:
    quiet: dict[str, Any] = {"zero_division": 0.0}  # instead of a warning
    return float(sklearn_metrics.f1_score(labels, predictions, average=average, **quiet))


_FUNCTIONS = {
    "accuracy": sklearn_metrics.accuracy_score,
    "f1": lambda labels, predictions: _f1(labels == 1, predictions == 1),
    "macro_f1": lambda labels, predictions: _f1(labels, predictions, "macro"),
    "matthews": _correlation(sklearn_metrics.matthews_corrcoef),
    "pearson": _correlation(lambda labels, predictions: stats.pearsonr(labels, predictions)[0]),
    "spearman": _correlation(lambda labels, predictions: stats.spearmanr(labels, predictions)[0]),
    "mean_squared_error": sklearn_metrics.mean_squared_error,
}


def _entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(type, first word, word after the last) of every entity."""
    entities, opened, start = set(), "", 0
    for i, tag in enumerate((*tags, "O")):
        prefix, _, kind = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not kind):
            raise ValueError(f"the tag {tag!r} is neither O nor B-TYPE nor I-TYPE")
        if prefix == "I" and kind == opened:
            continue
        if opened:
            entities.add((opened, start, i))
        opened, start = kind, i
    return entities
