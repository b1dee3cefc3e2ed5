"""What a fine-tuned classifier gets wrong."""

import numpy as np


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
