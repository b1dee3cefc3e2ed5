"""The operation that made the first NaN of a step, for `train.debug_nans`."""

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

_PACKAGE = Path(__file__).parent
# Compiled to run once: half the time it takes otherwise.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


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
    checked = jax.jit(checkify.checkify(step, errors=checkify.nan_checks))
    compiled = checked.lower(state, batch, key).compile(compiler_options=_QUICK)
    error, _ = compiled(state, batch, key)
    made = error.get_exception()
    said = "no operation made a NaN: a number grew beyond float32"
    if made is not None:
        said = f"{str(made).strip().rstrip('.')} at {_place(made)}"
    return f"{said}; not finite before the step: {', '.join(inputs) or 'nothing'}"


def _place(made: Any) -> str:
    """The innermost line of this package that an operation comes from."""
    frames = traceback.extract_tb(made.traceback_info.as_python_traceback())
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    frame = ours[-1] if ours else frames[-1]
    return f"{frame.filename}:{frame.lineno} ({frame.name}: {frame.line})"


def _not_finite(tree: Any) -> Iterator[str]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not jnp.isfinite(leaf).all():
            yield jax.tree_util.keystr(path, simple=True, separator="/")
