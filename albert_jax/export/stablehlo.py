"""StableHLO: the program as JAX lowers it, for any batch and length; parameters beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export

from albert_jax.config import ModelConfig
from albert_jax.model.layers import Compute
from albert_jax.predict.exported import PARAMS_FILE, STABLEHLO_FILE
from albert_jax.predict.program import Function, function_of

PLATFORMS = ("cpu", "cuda", "tpu")


def write_stablehlo(
    folder: Path,
    config: ModelConfig,
    params: Mapping[str, Any],
    outputs: Function,
    axes: Mapping[str, Sequence[str]],
) -> dict[str, list[Any]]:
    """Writes `model.stablehlo` and `params.npz`.

    The program is a function of (parameters by path, batch), float32 and int32. It runs on CPUs,
    NVIDIA GPUs and TPUs.

    Args:
      folder: an existing folder.
      config: the model's sizes.
      params: its parameters, nested.
      outputs: from (model, batch) to outputs by name.
      axes: of each array of a batch; those named alike are of one size, at least 1.

    Returns:
      The axes of each output, names or sizes.
    """
    # Plain products, because the attention kernels are for one platform each.
    function = function_of(config, params, outputs, Compute(attention="xla"))
    flat = traverse_util.flatten_dict(dict(params), sep="/")

    def program(flat: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> Any:
        return function(traverse_util.unflatten_dict(flat, sep="/"), batch)

    sizes = sorted({axis for names in axes.values() for axis in names})
    limit = f"T <= {config.max_position_embeddings}"
    symbols = dict(
        zip(sizes, export.symbolic_shape(", ".join(sizes), constraints=[limit]), strict=True)
    )
    shapes = {
        name: jax.ShapeDtypeStruct(tuple(symbols[axis] for axis in names), jnp.int32)
        for name, names in axes.items()
    }
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(
        jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), flat), shapes
    )
    (folder / STABLEHLO_FILE).write_bytes(exported.serialize())
    with (folder / PARAMS_FILE).open("wb") as file:
        np.savez(
            file, allow_pickle=False, **{path: np.asarray(leaf) for path, leaf in flat.items()}
        )
    found = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    return {
        name: [axis if isinstance(axis, int) else str(axis) for axis in aval.shape]
        for name, aval in found.items()
    }
