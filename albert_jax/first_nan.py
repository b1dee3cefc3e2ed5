"""The operation that made the first NaN of a step, for `train.debug_nans`."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify


def first_nan(step: Callable[..., Any], state: Any, batch: Any, key: jax.Array) -> str:
    """Computes a step again, each operation checked, and says where the first NaN was made.

    Args:
      step: (state, batch, key) -> anything; what it is given may be donated.
      state: as it was before the step.
      batch: the step's.
      key: the step's.

    Returns:
      The operation with its source line, and what of the inputs was not finite already.
    """
    inputs = list(_not_finite({"parameters": state.params, "batch": batch}))
    error, _ = checkify.checkify(step, errors=checkify.float_checks)(state, batch, key)
    found = error.get() or "no operation made a NaN: a number grew beyond float32"
    said = " ".join(found.split())
    return f"{said}; not finite before the step: {', '.join(inputs) or 'nothing'}"


def _not_finite(tree: Any) -> Iterator[str]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not jnp.isfinite(leaf).all():
            yield jax.tree_util.keystr(path, simple=True, separator="/")
