"""Parameters to and from another code base's named variables, nothing missing or left over."""

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from albert_jax.config import ModelConfig
from albert_jax.convert.names import Variable, variables
from albert_jax.model import Albert

HEADS = ("pooler", "mlm", "sop", "classifier", "span")
_LISTED = 8  # names in an error message


def heads_of(params: Mapping[str, Any]) -> tuple[str, ...]:
    """The heads that a parameter tree has."""
    return tuple(head for head in HEADS if head in params)


def to_variables(params: Mapping[str, Any], config: ModelConfig, dialect: str) -> dict[str, Any]:
    """Our parameters as the dialect's variables: name -> float32 numpy array.

    Raises:
      ValueError: where the dialect cannot represent the model.
    """
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    found = {}
    for variable in variables(config, heads_of(params), dialect):
        leaf = np.asarray(flat[variable.path])
        array = leaf if variable.layer is None else leaf[variable.layer]
        found[variable.name] = np.ascontiguousarray(array.T if variable.is_transposed else array)
    return found


def from_variables(
    found: Mapping[str, np.ndarray], config: ModelConfig, dialect: str, source: str
) -> dict[str, Any]:
    """The dialect's variables as our parameters: nested dict of float32 numpy arrays.

    Heads of which there is nothing are left out.

    Args:
      found: name -> array, floating.
      config: the model's sizes.
      dialect: whose names they are.
      source: where they come from, for messages.

    Raises:
      ValueError: for variables missing, left over, or of another shape or type.
    """
    heads = [head for head in _heads_of_dialect(dialect) if _has_any(found, config, head, dialect)]
    wanted = variables(config, heads, dialect)
    _check_names({variable.name for variable in wanted}, found.keys(), source)
    shapes = _shapes(config, heads, found, wanted)
    flat: dict[str, Any] = {}
    for variable in wanted:
        array = _checked(found[variable.name], variable, shapes[variable.path], source)
        if variable.layer is None:
            flat[variable.path] = array
        else:
            flat.setdefault(variable.path, []).append(array)
    stacked = {path: np.stack(a) if isinstance(a, list) else a for path, a in flat.items()}
    return traverse_util.unflatten_dict(stacked, sep="/")


def abstract_model(config: ModelConfig, params: Mapping[str, Any]) -> Albert:
    """The model whose parameters these are (arrays or shapes), shapes in place of arrays."""
    heads = heads_of(params)
    labels = params["classifier"]["bias"].shape[0] if "classifier" in heads else 0
    return nnx.eval_shape(lambda: Albert(config, heads, num_labels=labels, rngs=nnx.Rngs(0)))


def _heads_of_dialect(dialect: str) -> tuple[str, ...]:
    return HEADS if dialect == "albert" else HEADS[:3]


def _own(head: str, config: ModelConfig, dialect: str) -> list[Variable]:
    return [v for v in variables(config, [head], dialect) if v.path.partition("/")[0] == head]


def _has_any(found: Mapping[str, Any], config: ModelConfig, head: str, dialect: str) -> bool:
    return any(variable.name in found for variable in _own(head, config, dialect))


def _check_names(wanted: Collection[str], found: Collection[str], source: str) -> None:
    complaints = []
    for what, names in {
        "missing": [name for name in wanted if name not in found],
        "not known": [name for name in found if name not in wanted],
    }.items():
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            complaints.append(f"{what}: {', '.join(sorted(names)[:_LISTED])}{more}")
    if complaints:
        raise ValueError(
            f"{source}: the variables are not those of the model that its config describes; "
            + "; ".join(complaints)
        )


def _shapes(
    config: ModelConfig, heads: Collection[str], found: Mapping[str, Any], wanted: list[Variable]
) -> dict[str, tuple[int, ...]]:
    """Our parameters' shapes; the classifier has as many classes as its bias."""
    num_labels = next((found[v.name].size for v in wanted if v.path == "classifier/bias"), 2)
    model = nnx.eval_shape(
        lambda: Albert(config, tuple(heads), num_labels=num_labels, rngs=nnx.Rngs(0))
    )
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def _checked(
    array: np.ndarray, variable: Variable, shape: tuple[int, ...], source: str
) -> np.ndarray:
    if variable.layer is not None:
        shape = shape[1:]
    if array.shape != (shape[::-1] if variable.is_transposed else shape):
        raise ValueError(
            f"{source}: {variable.name} has shape {array.shape}, but by the config it is "
            f"{shape[::-1] if variable.is_transposed else shape}"
        )
    if not jnp.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{source}: {variable.name} is of type {array.dtype}, not floating")
    return np.ascontiguousarray(array.T if variable.is_transposed else array, np.float32)
