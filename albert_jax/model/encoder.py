"""The scanned stack of layers, with any part of the weights shared between them.

Layers are divided into `num_hidden_groups` groups of adjacent layers. Within a group, the
attention and feed-forward blocks each have either one set of weights for all layers (closed over
by the scan) or one set per layer (a leading axis L that the scan runs over), depending on
`share`. Compile time does not grow with depth.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.model.attention import Attention, Segments
from albert_jax.model.layers import (
    KEPT,
    Compute,
    Dense,
    LayerNorm,
    activation,
    dropout,
    split_keys,
)
from albert_jax.model.sharding import split_rows

# share -> the blocks for which every layer has its own weights; the last is the decoder's.
UNSHARED = {
    "all": (),
    "attention": ("ffn",),
    "ffn": ("attention", "cross_attention"),
    "none": ("attention", "ffn", "cross_attention"),
}
_REMAT_POLICIES = {
    "full": None,
    # By name, because a policy for dots does not see the products inside custom gradients.
    "dots": jax.checkpoint_policies.save_only_these_names(KEPT),
}


def is_stacked(path: str, share: str) -> bool:
    """Returns whether the parameter at `path` has a leading axis over layers."""
    match = re.fullmatch(r"(?:en|de)coder/group_\d+/inner_group_\d+/(\w+)/.*", path)
    return match is not None and match[1] in UNSHARED[share]


def layers_of_groups(num_layers: int, num_groups: int) -> list[int]:
    """Returns the number of layers of each group: layer l belongs to group ⌊l·G/L⌋.

    Source: google-research/albert modeling.py, transformer_model.
    """
    groups = [layer * num_groups // num_layers for layer in range(num_layers)]
    return [groups.count(group) for group in range(num_groups)]


class FeedForward(nnx.Module):
    """`LN(x + output(act(intermediate(x))))`."""

    def __init__(self, config: ModelConfig, *, compute: Compute, rngs: nnx.Rngs):
        """Creates the D×F and F×D projections and the norm."""
        dtype = compute.dtype
        self.act = activation(config.hidden_act)
        self.dropout_rate = config.hidden_dropout_prob
        self.intermediate = Dense(
            config.hidden_size, config.intermediate_size, config, dtype, rngs
        )
        self.output = Dense(config.intermediate_size, config.hidden_size, config, dtype, rngs)
        self.norm = LayerNorm(config.hidden_size, config, dtype)

    @jax.named_scope("feed_forward")
    def __call__(self, x_BTD: jax.Array, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Maps x_BTD to x_BTD; dropout is on if `dropout_keys_B` are given."""
        y_BTD = self.output(self.act(self.intermediate(x_BTD)))
        return self.norm(x_BTD + dropout(y_BTD, self.dropout_rate, dropout_keys_B))


BLOCKS = {"attention": Attention, "ffn": FeedForward}  # of a layer, in order


class InnerGroup(nnx.Module):
    """The blocks of a layer, each an attribute; unshared ones hold [L, ...] leaves."""

    def __init__(
        self,
        config: ModelConfig,
        num_layers: int,
        classes: Mapping[str, type],
        *,
        compute: Compute,
        rngs: nnx.Rngs,
    ):
        """Creates the blocks in `classes`, `num_layers` times those that are not shared."""
        for name, cls in classes.items():
            block = cls(config, compute=compute, rngs=rngs)
            if name in UNSHARED[config.share]:
                _stack(block, cls, config, num_layers, compute, rngs)
            setattr(self, name, block)


def _stack(
    block: nnx.Module,
    cls: type,
    config: ModelConfig,
    num_layers: int,
    compute: Compute,
    rngs: nnx.Rngs,
) -> None:
    """Replaces each parameter of `block` with `num_layers` independent draws."""

    def draw(key: jax.Array) -> nnx.State:
        return nnx.state(cls(config, compute=compute, rngs=nnx.Rngs(key)), nnx.Param)

    # vmap instead of a loop, so that tracing and compile time do not grow with depth.
    nnx.update(block, jax.vmap(draw)(jax.random.split(rngs.params(), num_layers)))


class LayerBlocks:
    """The blocks of a group's layers: one module for all layers, or one set of weights each.

    Attributes:
      weights_L: the weights that differ between layers, by "inner group/block"; a scan over the
        layers runs over them.
    """

    def __init__(self, blocks: Mapping[tuple[str, str], nnx.Module], share: str):
        """Takes the blocks by (inner group, name)."""
        self._blocks, self._graphdefs, self.weights_L = dict(blocks), {}, {}
        for (inner, name), block in blocks.items():
            if name in UNSHARED[share]:
                self._graphdefs[inner, name], weights = nnx.split(block)
                self.weights_L[f"{inner}/{name}"] = weights

    def block(self, inner: str, name: str, weights: Mapping[str, Any]) -> Any:
        """Returns a layer's block; `weights` are that layer's of `weights_L`."""
        if (inner, name) in self._graphdefs:
            return nnx.merge(self._graphdefs[inner, name], weights[f"{inner}/{name}"])
        return self._blocks[inner, name]


class Group(nnx.Module):
    """A group of adjacent layers: `inner_group_num` blocks, applied `num_layers` times."""

    def __init__(self, config: ModelConfig, num_layers: int, *, compute: Compute, rngs: nnx.Rngs):
        """Creates `inner_group_0`, `inner_group_1` and so on."""
        self.num_layers, self.share = num_layers, config.share
        self.remat, self.unroll = compute.remat, min(compute.unroll, num_layers)
        self.inner_names = tuple(f"inner_group_{i}" for i in range(config.inner_group_num))
        for name in self.inner_names:
            inner = InnerGroup(config, num_layers, BLOCKS, compute=compute, rngs=rngs)
            setattr(self, name, inner)

    def blocks(self) -> dict[tuple[str, str], nnx.Module]:
        """Returns the blocks by (inner group, name)."""
        return {
            (inner, name): getattr(getattr(self, inner), name)
            for inner in self.inner_names
            for name in BLOCKS
        }

    def __call__(
        self,
        x_BTD: jax.Array,
        segments: Segments,
        dropout_keys_B: jax.Array | None,
        keep_hidden: bool,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Maps x_BTD to x_BTD, and to x_LBTD after each layer if `keep_hidden`."""
        blocks = LayerBlocks(self.blocks(), self.share)

        def layer(x_BTD, scanned):
            layer_keys_B, weights = scanned
            keys = split_keys(layer_keys_B, 2 * len(self.inner_names))
            for i, inner in enumerate(self.inner_names):
                x_BTD = blocks.block(inner, "attention", weights)(x_BTD, segments, keys[2 * i])
                x_BTD = blocks.block(inner, "ffn", weights)(x_BTD, keys[2 * i + 1])
            x_BTD = split_rows(x_BTD)
            return x_BTD, x_BTD if keep_hidden else None

        keys_LB = None if dropout_keys_B is None else split_keys(dropout_keys_B, self.num_layers)
        return jax.lax.scan(
            rematerialized(layer, self.remat),
            x_BTD,
            (keys_LB, blocks.weights_L),
            length=self.num_layers,
            unroll=self.unroll,
        )


def rematerialized(layer: Callable, remat: str) -> Callable:
    """Returns a scan's `layer` with what `train.remat` says about its backward pass."""
    if remat == "none":
        return layer
    return jax.checkpoint(layer, policy=_REMAT_POLICIES[remat], prevent_cse=False)


class Encoder(nnx.Module):
    """All groups, preceded by a projection from E to D (see `project_embeddings`)."""

    def __init__(self, config: ModelConfig, *, compute: Compute, rngs: nnx.Rngs):
        """Creates `embed_proj` (if any) and the groups: `group_0`, `group_1` and so on."""
        self.projects = config.has_projection
        if self.projects:
            self.embed_proj = Dense(
                config.embedding_size, config.hidden_size, config, compute.dtype, rngs
            )
        counts = layers_of_groups(config.num_hidden_layers, config.num_hidden_groups)
        self.group_names = tuple(f"group_{i}" for i in range(len(counts)))
        for name, count in zip(self.group_names, counts, strict=True):
            setattr(self, name, Group(config, count, compute=compute, rngs=rngs))

    def __call__(
        self,
        x_BTE: jax.Array,
        segment_ids: jax.Array,
        dropout_keys_B: jax.Array | None,
        keep_hidden: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Maps x_BTE to x_BTD, and to hidden states [L+1,B,T,D] if `keep_hidden`."""
        x_BTD = split_rows(self.embed_proj(x_BTE) if self.projects else x_BTE)
        segments = Segments.of(segment_ids)
        hidden = [x_BTD[None]]
        for name, group_keys_B in zip(
            self.group_names, split_keys(dropout_keys_B, len(self.group_names)), strict=True
        ):
            x_BTD, hidden_LBTD = getattr(self, name)(x_BTD, segments, group_keys_B, keep_hidden)
            hidden.append(hidden_LBTD)
        return x_BTD, jnp.concatenate(hidden) if keep_hidden else None
