"""How much each layer changes what it is given: the paper's Figure 1."""

import numpy as np


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
