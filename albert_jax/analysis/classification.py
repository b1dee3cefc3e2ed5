"""Whether a model's probabilities are what they say: of sentence order, of classes."""

from typing import NamedTuple

import numpy as np


class Calibration(NamedTuple):
    """Predictions sorted into K bins of equal width by their probability.

    Attributes:
      confidence: float64 [K], mean probability given to the predicted class; nan where empty.
      accuracy: float64 [K], share of them that were right; nan where empty.
      count: int64 [K].
      error: mean of |confidence - accuracy| over all predictions.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    error: float


def calibration(probs_PK: np.ndarray, labels_P: np.ndarray, bins: int = 10) -> Calibration:
    """Compares how sure a model is with how often it is right.

    Source: arXiv:1706.04599, section 2 (the error is its expected calibration error).

    Args:
      probs_PK: probabilities of the classes.
      labels_P: the right classes.
      bins: how many, from 1 / classes (the least that the predicted class can have) to 1.
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
    """How many examples of class i were taken for class j: int64 [i,j]."""
    pairs = np.asarray(labels) * classes + np.asarray(predictions)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def surest_errors(probs_PK: np.ndarray, labels_P: np.ndarray, count: int) -> np.ndarray:
    """Numbers of the wrong predictions, those with the highest probability first.

    Returns:
      int64 [at most `count`].
    """
    wrong = np.flatnonzero(probs_PK.argmax(axis=1) != labels_P)
    return wrong[np.argsort(-probs_PK[wrong].max(axis=1), kind="stable")][:count]
