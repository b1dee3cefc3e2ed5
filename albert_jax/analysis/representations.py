"""How much each layer changes what it is given: the paper's Figure 1."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util


def layer_distances(hidden_states: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
    """Mean L2 distance between each layer's input and its output, over all pieces.

    Source: arXiv:1909.11942, Figure 1, left.

    Args:
      hidden_states: float [L+1,B,T,D], the encoder's input and each layer's output.
      mask_BT: 0 on padding.

    Returns:
      float64 [L].
    """
    x_LPD = _pieces(hidden_states, mask_BT)
    return np.linalg.norm(np.diff(x_LPD, axis=0), axis=-1).mean(axis=-1)


def layer_angles(hidden_states: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
    """Mean angle in degrees between each layer's input and its output, over all pieces.

    Source: arXiv:1909.11942, Figure 1, right.

    Arguments and shape of the result are those of `layer_distances`.
    """
    x_LPD = _pieces(hidden_states, mask_BT)
    x_LPD = x_LPD / np.linalg.norm(x_LPD, axis=-1, keepdims=True)
    # From the chord, not the cosine, which has no digits left where the angle is small.
    chord_LP = np.linalg.norm(np.diff(x_LPD, axis=0), axis=-1)
    return np.degrees(2 * np.arcsin(np.clip(chord_LP / 2, 0, 1))).mean(axis=-1)


def _pieces(hidden_states: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
    """Hidden states of the pieces alone, float64 [L+1,P,D]."""
    return hidden_states[:, np.asarray(mask_BT, bool)].astype(np.float64)


class Neighbours(NamedTuple):
    """The K pieces nearest to each of P: ids int64 [P,K], cosines float [P,K], nearest first."""

    ids: np.ndarray
    cosines: np.ndarray


def nearest_pieces(table_VE: np.ndarray, ids: np.ndarray, count: int) -> Neighbours:
    """The pieces whose embeddings have the smallest angle to those of `ids`.

    Args:
      table_VE: the embeddings of all pieces.
      ids: int [P], the pieces asked about; none is its own neighbour.
      count: how many neighbours, fewer than V.

    Raises:
      ValueError: where there are not so many other pieces.
    """
    if not 0 < count < len(table_VE):
        raise ValueError(f"count={count} must be from 1 to {len(table_VE) - 1}")
    unit_VE = table_VE / np.maximum(np.linalg.norm(table_VE, axis=1, keepdims=True), 1e-30)
    cosines_PV = unit_VE[ids] @ unit_VE.T
    cosines_PV[np.arange(len(ids)), ids] = -np.inf
    best_PK = np.argsort(-cosines_PV, axis=1, kind="stable")[:, :count]
    return Neighbours(best_PK, np.take_along_axis(cosines_PV, best_PK, axis=1))


def spectrum(table_VE: np.ndarray) -> np.ndarray:
    """Share of the embeddings' variance along each principal axis, float64 [E], falling."""
    centred_VE = np.asarray(table_VE, np.float64)
    centred_VE = centred_VE - centred_VE.mean(axis=0)
    # The E×E covariance in place of an SVD of the whole table: E is small, V is not.
    variances = np.linalg.eigvalsh(centred_VE.T @ centred_VE)[::-1].clip(min=0)
    return variances / variances.sum()


def effective_rank(shares: np.ndarray) -> float:
    """How many axes of equal variance would have the entropy of these shares, from 1 to E.

    Source: Roy & Vetterli, The effective rank, EUSIPCO 2007.
    """
    positive = shares[shares > 0]
    return float(np.exp(-np.sum(positive * np.log(positive))))


def linear_cka(x_PD: np.ndarray, y_PD: np.ndarray) -> float:
    """Linear centred kernel alignment of two representations of the same P pieces.

    1 where they are equal but for rotation, scale and shift; 0 where nothing of one is a
    linear function of the other. The widths may differ.

    Source: arXiv:1905.00414, section 3.
    """
    x_PD, y_PD = (np.asarray(a, np.float64) - np.mean(a, axis=0) for a in (x_PD, y_PD))
    shared = np.linalg.norm(x_PD.T @ y_PD) ** 2
    return float(shared / (np.linalg.norm(x_PD.T @ x_PD) * np.linalg.norm(y_PD.T @ y_PD)))


def layer_similarity(
    hidden_states: np.ndarray, others: np.ndarray, mask_BT: np.ndarray
) -> np.ndarray:
    """`linear_cka` of every layer of one model with every layer of another, float64 [L+1,M+1].

    Args:
      hidden_states: float [L+1,B,T,D] of one model.
      others: float [M+1,B,T,D] of the other, for the same texts; its D may be another.
      mask_BT: 0 on padding.
    """
    mask_BT = np.asarray(mask_BT, bool)
    return np.array(
        [
            [linear_cka(x_BTD[mask_BT], y_BTD[mask_BT]) for y_BTD in others]
            for x_BTD in hidden_states
        ]
    )


def relative_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float]:
    """‖after - before‖ / ‖before‖ of each parameter, by its path.

    Only of those that both have in one shape. Infinite for what was all zero and is not any more.
    """
    old, new = (traverse_util.flatten_dict(dict(tree), sep="/") for tree in (before, after))
    changes = {}
    for path in (path for path in old if path in new):
        a, b = np.asarray(old[path]), np.asarray(new[path])
        if a.shape == b.shape:
            size, change = np.linalg.norm(a), np.linalg.norm(b - a)
            changes[path] = float(change / size) if size else float(np.where(change, np.inf, 0))
    return changes
