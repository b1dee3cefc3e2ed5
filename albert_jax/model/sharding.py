"""The device mesh, and the sharding of parameters and batch rows over it.

One table maps a parameter's path to its sharding. Axes: `data` splits only the batch; `fsdp`
splits the batch and, between steps, the hidden axis of the weights; `tensor` splits vocabulary,
heads and feed-forward units.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from albert_jax.config import Config, MeshConfig

BATCH = P(("data", "fsdp"))  # rows of a batch
REPLICATED = P()

# Path of a parameter (regular expression for the full path) -> mesh axes of its last dimensions.
# Leading dimensions beyond these (stacked layers) are not split. The token table is split only
# over the vocabulary, because XLA would gather all of it if it were split over two axes.
PARAM_RULES = (
    (r"(decoder/)?embeddings/token_embed/embedding", ("tensor", None)),
    (r"(decoder/)?embeddings/(position|type)_embed/embedding", (None, None)),
    (r"(en|de)coder/embed_proj/kernel", (None, "fsdp")),
    (r"(en|de)coder/embed_proj/bias", (None,)),
    (r"(en|de)coder/.*attention/(query|key|value)/kernel", ("fsdp", "tensor")),
    (r"(en|de)coder/.*attention/(query|key|value)/bias", ("tensor",)),
    (r"(en|de)coder/.*attention/output/kernel", ("tensor", "fsdp")),
    (r"(en|de)coder/.*/ffn/intermediate/kernel", ("fsdp", "tensor")),
    (r"(en|de)coder/.*/ffn/intermediate/bias", ("tensor",)),
    (r"(en|de)coder/.*/ffn/output/kernel", ("tensor", "fsdp")),
    (r"(en|de)coder/.*(attention|ffn)/output/bias", (None,)),
    (r".*norm/(scale|bias)", (None,)),
    (r"pooler/kernel", ("fsdp", None)),
    (r"pooler/bias", (None,)),
    (r"mlm/dense/kernel", ("fsdp", None)),
    (r"mlm/dense/bias", (None,)),
    (r"mlm/bias", ("tensor",)),
    (r"(sop|classifier|span)/kernel", ("fsdp", None)),
    (r"(sop|classifier|span)/bias", (None,)),
)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the mesh (data, fsdp, tensor) over `devices`, all of them by default.

    Raises:
      ValueError: if the product of the axes is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(config, len(devices))
    return jax.make_mesh(
        tuple(sizes.values()),
        tuple(sizes),
        axis_types=(AxisType.Auto,) * len(sizes),
        devices=devices,
    )


def mesh_sizes(mesh: MeshConfig, num_devices: int) -> dict[str, int]:
    """Returns the devices along each axis, with -1 filled in.

    Raises:
      ValueError: if the product of the axes is not `num_devices`.
    """
    sizes = dataclasses.asdict(mesh)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if any(size == 0 or size < -1 for size in sizes.values()):
        raise ValueError(f"mesh sizes must be positive, or -1 on one axis; got {sizes}")
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ValueError(f"mesh.{' and mesh.'.join(free)} are both -1; set all but one")
    if num_devices % fixed or (not free and fixed != num_devices):
        raise ValueError(
            f"mesh {sizes} does not fit {num_devices} device(s); "
            "set mesh.data=-1 to use all devices that the other axes leave"
        )
    return sizes | dict.fromkeys(free, num_devices // fixed)


def validate_for_devices(config: Config, num_devices: int) -> None:
    """Checks that the batch and the model can be divided evenly over the mesh.

    Raises:
      ValueError: if they cannot; the message names the numbers.
    """
    sizes = mesh_sizes(config.mesh, num_devices)
    shards = sizes["data"] * sizes["fsdp"]
    train, model = config.train, config.model
    microbatch = train.batch_size // train.grad_accum_steps
    if microbatch % shards:
        raise ValueError(
            f"train.batch_size={train.batch_size} over grad_accum_steps="
            f"{train.grad_accum_steps} is {microbatch} rows, which do not divide evenly over mesh "
            f"data·fsdp={shards}; make it a multiple of {shards * train.grad_accum_steps}"
        )
    for axis, names in {
        "fsdp": ("hidden_size",),
        "tensor": ("vocab_size", "num_attention_heads", "intermediate_size"),
    }.items():
        for name in names:
            if getattr(model, name) % sizes[axis]:
                raise ValueError(
                    f"model.{name}={getattr(model, name)} does not divide over "
                    f"mesh.{axis}={sizes[axis]}; choose a mesh.{axis} that divides it"
                )


def path_of(key_path: tuple) -> str:
    """Returns a pytree key path as `a/b/c`."""
    return jax.tree_util.keystr(key_path, simple=True, separator="/")


def param_spec(path: str, ndim: int) -> P:
    """Returns the partition of the parameter at `path`.

    Raises:
      ValueError: unless exactly one rule of `PARAM_RULES` matches.
    """
    matches = [axes for pattern, axes in PARAM_RULES if re.fullmatch(pattern, path)]
    if len(matches) != 1:
        raise ValueError(f"parameter {path!r} matches {len(matches)} sharding rules, not 1")
    axes = matches[0]
    return P(*(None,) * (ndim - len(axes)), *axes)


def param_sharding(params: Any, mesh: Mesh) -> Any:
    """Returns a NamedSharding for each leaf of `params` (arrays or their shapes)."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, param_spec(path_of(path), leaf.ndim)), params
    )


def split_rows(x: jax.Array) -> jax.Array:
    """Constrains `x`, whose first axis is the batch, to be split over the batch axes.

    Does nothing outside `jax.set_mesh`, so that models also run on one device. Skips axes along
    which each device already has its own rows (see `train_step`).
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = tuple(a for a in ("data", "fsdp") if a in mesh.auto_axes)
    return jax.lax.with_sharding_constraint(x, P(axes)) if axes else x


def target_device() -> Any:
    """Returns a device, or its description, of the kind that the program being traced is for.

    Those are the devices of `jax.set_mesh`'s mesh, which need not be here; without a mesh, as in
    prediction, those of this process.
    """
    return jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns the positions in a global batch of this process's rows, ascending."""
    indices = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch_size,))
    positions = np.arange(batch_size)
    return np.unique(np.concatenate([positions[index] for index in indices.values()]))


def global_batch(local: dict[str, np.ndarray], mesh: Mesh, batch_size: int) -> dict[str, Any]:
    """Returns the global arrays of which this process holds `local_rows`."""
    sharding = NamedSharding(mesh, BATCH)
    return {
        name: jax.make_array_from_process_local_data(
            sharding, array, (batch_size, *array.shape[1:])
        )
        for name, array in local.items()
    }
