"""Analyses of hidden states and embeddings, such as the layer changes of the paper's Figure 1."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util


def layer_distances(hidden_states: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
    """Returns the mean L2 distance between each layer's input and output, over all tokens.

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
    """Returns the mean angle in degrees between each layer's input and output, over all tokens.

    Source: arXiv:1909.11942, Figure 1, right.

    Arguments and shape of the result are those of `layer_distances`.
    """
    x_LPD = _pieces(hidden_states, mask_BT)
    x_LPD = x_LPD / np.linalg.norm(x_LPD, axis=-1, keepdims=True)
    # Uses the chord because the cosine loses all precision for small angles.
    chord_LP = np.linalg.norm(np.diff(x_LPD, axis=0), axis=-1)
    return np.degrees(2 * np.arcsin(np.clip(chord_LP / 2, 0, 1))).mean(axis=-1)


def _pieces(hidden_states: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
    """Returns the hidden states of tokens without padding, float64 [L+1,P,D]."""
    return hidden_states[:, np.asarray(mask_BT, bool)].astype(np.float64)


class Neighbours(NamedTuple):
    """The K nearest pieces of each of P: ids int64 [P,K], cosines float [P,K], nearest first."""

    ids: np.ndarray
    cosines: np.ndarray


def nearest_pieces(table_VE: np.ndarray, ids: np.ndarray, count: int) -> Neighbours:
    """Returns the pieces whose embeddings have the smallest angle to those of `ids`.

    Args:
      table_VE: the embeddings of all pieces.
      ids: int [P], the query pieces; a piece is not its own neighbour.
      count: the number of neighbours, fewer than V.

    Raises:
      ValueError: if there are fewer other pieces.
    """
    if not 0 < count < len(table_VE):
        raise ValueError(f"count={count} must be from 1 to {len(table_VE) - 1}")
    unit_VE = table_VE / np.maximum(np.linalg.norm(table_VE, axis=1, keepdims=True), 1e-30)
    cosines_PV = unit_VE[ids] @ unit_VE.T
    cosines_PV[np.arange(len(ids)), ids] = -np.inf
    best_PK = np.argsort(-cosines_PV, axis=1, kind="stable")[:, :count]
    return Neighbours(best_PK, np.take_along_axis(cosines_PV, best_PK, axis=1))


def spectrum(table_VE: np.ndarray) -> np.ndarray:
    """Returns the fraction of variance along each principal axis, float64 [E], descending."""
    centred_VE = np.asarray(table_VE, np.float64)
    centred_VE = centred_VE - centred_VE.mean(axis=0)
    # Uses the E×E covariance instead of an SVD of the table, because E is small and V is not.
    variances = np.linalg.eigvalsh(centred_VE.T @ centred_VE)[::-1].clip(min=0)
    return variances / variances.sum()


def effective_rank(shares: np.ndarray) -> float:
    """Returns the number of equal-variance axes with the same entropy, from 1 to E.

    Source: Roy & Vetterli, The effective rank, EUSIPCO 2007.
    """
    positive = shares[shares > 0]
    return float(np.exp(-np.sum(positive * np.log(positive))))


def linear_cka(x_PD: np.ndarray, y_PD: np.ndarray) -> float:
    """Returns the linear centred kernel alignment of two representations of the same P tokens.

    It is 1 if they are equal up to rotation, scale and shift, and 0 if no part of one is a linear
    function of the other. The widths may differ.

    Source: arXiv:1905.00414, section 3.
    """
    x_PD, y_PD = (np.asarray(a, np.float64) - np.mean(a, axis=0) for a in (x_PD, y_PD))
    shared = np.linalg.norm(x_PD.T @ y_PD) ** 2
    return float(shared / (np.linalg.norm(x_PD.T @ x_PD) * np.linalg.norm(y_PD.T @ y_PD)))


def layer_similarity(
    hidden_states: np.ndarray, others: np.ndarray, mask_BT: np.ndarray
) -> np.ndarray:
    """Returns `linear_cka` of all layers of one model with all of another, float64 [L+1,M+1].

    Args:
      hidden_states: float [L+1,B,T,D] of one model.
      others: float [M+1,B,T,D] of the other, for the same texts; its D may differ.
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
    """Returns ‖after - before‖ / ‖before‖ of each parameter, by its path.

    Covers parameters that both have with the same shape. Infinite if a parameter was all zero and
    no longer is.
    """
    old, new = (traverse_util.flatten_dict(dict(tree), sep="/") for tree in (before, after))
    changes = {}
    for path in (path for path in old if path in new):
        a, b = np.asarray(old[path]), np.asarray(new[path])
        if a.shape == b.shape:
            size, change = np.linalg.norm(a), np.linalg.norm(b - a)
            changes[path] = float(change / size) if size else float(np.where(change, np.inf, 0))
    return changes
