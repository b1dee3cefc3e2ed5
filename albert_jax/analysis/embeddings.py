"""The space of the pieces' embeddings: neighbours and spectrum."""

from typing import NamedTuple

import numpy as np


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
