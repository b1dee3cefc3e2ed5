"""Statistics of parameters and of the optimizer's moments."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util


class Statistics(NamedTuple):
    """One parameter's number of elements, mean, standard deviation, L2 norm and maximum |x|."""

    size: int
    mean: float
    std: float
    norm: float
    largest: float


class MomentStatistics(NamedTuple):
    """Statistics of the optimizer's moments of one parameter.

    Attributes:
      gradient: root mean square of the gradient, from the second moment.
      signal: fraction of it that does not average out over steps, from 0 (only noise) to 1.
    """

    gradient: float
    signal: float


def parameter_statistics(params: Mapping[str, Any]) -> dict[str, Statistics]:
    """Returns the statistics of each parameter, by its path."""
    return {path: _statistics(array) for path, array in _flat(params).items()}


def moment_statistics(mu: Mapping[str, Any], nu: Mapping[str, Any]) -> dict[str, MomentStatistics]:
    """Returns the statistics of each parameter's moments, by its path.

    Args:
      mu: first moments, running means of the gradient.
      nu: second moments, running means of its square.
    """
    first, second = _flat(mu), _flat(nu)
    found = {}
    for path, mean in first.items():
        gradient = float(np.sqrt(np.mean(second[path])))
        steady = float(np.sqrt(np.mean(np.square(mean))))
        found[path] = MomentStatistics(gradient, steady / gradient if gradient else 0.0)
    return found


def count_parameters(params: Mapping[str, Any]) -> int:
    """Returns the number of elements in a parameter tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _statistics(array: np.ndarray) -> Statistics:
    return Statistics(
        array.size,
        float(array.mean()),
        float(array.std()),
        float(np.linalg.norm(array)),
        float(np.abs(array).max()),
    )


def _flat(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    leaves = traverse_util.flatten_dict(dict(tree), sep="/")
    return {path: np.asarray(leaf, np.float64) for path, leaf in leaves.items()}
