"""The training state: its contents, its sharding over the mesh and its initialization."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from albert_jax.model.sharding import REPLICATED, param_sharding, path_of


class TrainState(NamedTuple):
    """The training state: `step` int32 [], updates done; float32 pytrees `params`, `opt_state`."""

    step: jax.Array
    params: Any
    opt_state: Any


class StateSpec(NamedTuple):
    """The static structure around the arrays, from which a step is compiled."""

    graphdef: Any
    tx: optax.GradientTransformation
    abstract_state: TrainState  # shapes, dtypes and shardings
    init: Callable[[jax.Array], TrainState]  # key -> state, placed on the mesh


def state_spec(
    build: Callable[[jax.Array], nnx.Module], tx: optax.GradientTransformation, mesh: Mesh
) -> StateSpec:
    """Returns the spec of the model that `build` makes from a key, without computing anything."""
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: build(jax.random.key(0))), nnx.Param)

    def init(key: jax.Array) -> TrainState:
        params = nnx.to_pure_dict(nnx.state(build(key), nnx.Param))
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))

    # The key too is abstract: nothing may run under a mesh of devices that are not here.
    shapes = jax.eval_shape(lambda: init(jax.random.key(0)))
    replicated = NamedSharding(mesh, REPLICATED)
    params = param_sharding(shapes.params, mesh)
    opt_state = _sharding_of_state(shapes, params, replicated)
    shardings = shapes._replace(step=replicated, params=params, opt_state=opt_state)
    abstract_state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    return StateSpec(graphdef, tx, abstract_state, jax.jit(init, out_shardings=shardings))


def _sharding_of_state(state: TrainState, params: Any, replicated: NamedSharding) -> Any:
    """Returns shardings of the optimizer's state: like its parameter's, or on all devices.

    A leaf belongs to the parameter whose path its own path ends with, if it has that shape too.
    optax's `map_params` fails for optimizers that treat some parameters apart, as Muon does.

    Args:
      state: shapes.
      params: the parameters' shardings.
      replicated: for what belongs to no parameter.
    """
    shapes, shardings = (
        {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (state.params, params)
    )

    def place(key_path: tuple, leaf: Any) -> NamedSharding:
        path = path_of(key_path)
        while path and path not in shapes:
            path = path.partition("/")[2]
        return shardings[path] if path and shapes[path].shape == leaf.shape else replicated

    return jax.tree_util.tree_map_with_path(place, state.opt_state)
