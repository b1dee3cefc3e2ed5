"""Calibration and errors of a model's class probabilities, also for sentence order."""

from typing import NamedTuple

import numpy as np


class Calibration(NamedTuple):
    """Predictions sorted into K bins of equal width by their probability.

    Attributes:
      confidence: float64 [K], mean probability of the predicted class; nan for empty bins.
      accuracy: float64 [K], fraction of correct predictions; nan for empty bins.
      count: int64 [K], number of predictions.
      error: mean of |confidence - accuracy| over all predictions.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    error: float


def calibration(probs_PK: np.ndarray, labels_P: np.ndarray, bins: int = 10) -> Calibration:
    """Compares a model's confidence with its accuracy.

    Source: arXiv:1706.04599, section 2 (the error is its expected calibration error).

    Args:
      probs_PK: probabilities of the classes.
      labels_P: the correct classes.
      bins: number of bins from 1 / classes (the predicted class's minimum probability) to 1.
    """
    classes = probs_PK.shape[1]
    confidence_P = probs_PK.max(axis=1).astype(np.float64)
    correct_P = probs_PK.argmax(axis=1) == labels_P
    least = 1 / classes
    place_P = ((confidence_P - least) / (1 - least) * bins).astype(int).clip(0, bins - 1)
    count = np.bincount(place_P, minlength=bins)
    divisor = np.where(count, count, np.nan)
    confidence = np.bincount(place_P, confidence_P, bins) / divisor
    accuracy = np.bincount(place_P, correct_P, bins) / divisor
    error = np.nansum(np.abs(confidence - accuracy) * count) / len(labels_P)
    return Calibration(confidence, accuracy, count, float(error))


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """Returns how many examples of class i were predicted as class j: int64 [i,j]."""
    pairs = np.asarray(labels) * classes + np.asarray(predictions)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def surest_errors(probs_PK: np.ndarray, labels_P: np.ndarray, count: int) -> np.ndarray:
    """Returns the indices of the wrong predictions, those with the highest probability first.

    Returns:
      int64 [at most `count`].
    """
    wrong = np.flatnonzero(probs_PK.argmax(axis=1) != labels_P)
    return wrong[np.argsort(-probs_PK[wrong].max(axis=1), kind="stable")][:count]
