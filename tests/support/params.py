"""Parameter trees of random numbers, and their comparison."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.model import PRETRAINING, Albert


def random_params(
    config: ModelConfig, heads: Sequence[str] = PRETRAINING, num_labels: int = 2, seed: int = 0
) -> Any:
    """A nested dict of normal float32 numbers, so that no two parameters are alike."""
    model = nnx.eval_shape(
        lambda: Albert(config, tuple(heads), num_labels=num_labels, rngs=nnx.Rngs(0))
    )
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32),
        nnx.to_pure_dict(nnx.state(model, nnx.Param)),
    )


def equal_trees(a: Any, b: Any) -> bool:
    """Whether two trees have the same keys, and arrays of the same type and bits."""
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(
        jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b)
    )
