"""Where masked pieces are found: by n-gram length, by how frequent they are, by position."""

from typing import NamedTuple

import numpy as np

from albert_jax.data.sentence_pairs import RowSource


class GroupAccuracy(NamedTuple):
    """Of K groups of predictions: group int64 [K], accuracy float64 [K], count int64 [K]."""

    group: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def accuracy_by(correct_P: np.ndarray, groups_P: np.ndarray) -> GroupAccuracy:
    """Accuracy of each group that has a prediction, groups ascending."""
    group, place_P, count = np.unique(groups_P, return_inverse=True, return_counts=True)
    return GroupAccuracy(group, np.bincount(place_P, correct_P) / count, count)


def piece_counts(rows: RowSource, vocab_size: int, limit: int | None = None) -> np.ndarray:
    """How often each piece occurs in prepared rows, int64 [V].

    Args:
      rows: a split's rows.
      vocab_size: V.
      limit: rows, the first ones; by default all.
    """
    counts = np.zeros(vocab_size, np.int64)
    for row in range(min(limit or len(rows), len(rows))):
        counts += np.bincount(rows[row]["pieces"], minlength=vocab_size)
    return counts


def frequency_bands(
    counts_V: np.ndarray, edges: tuple[int, ...] = (100, 1000, 10_000)
) -> np.ndarray:
    """The band of each piece by its rank in frequency, int64 [V].

    Band 0 has the `edges[0]` most frequent pieces, band 1 those that follow up to rank
    `edges[1]`, and so on; the last has the rest.
    """
    rank_V = np.empty(len(counts_V), np.int64)
    rank_V[np.argsort(-counts_V, kind="stable")] = np.arange(len(counts_V))
    return np.searchsorted(edges, rank_V, side="right")
