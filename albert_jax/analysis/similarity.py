"""Comparison of two checkpoints: their layers' representations, and their parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util


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
