"""The decoder: causal self-attention, attention to the source, feed-forward.

Its self-attention and feed-forward blocks are the encoder's, or its own, as `config.decoder`
says; cross-attention is always its own. Like the encoder's, each kind of block has one set of
weights for all layers of a group, or one per layer, depending on `share`.

Letters as in `model/__init__.py`; S is a position of the source or of the cache.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.model.attention import Attention
from albert_jax.model.encoder import (
    BLOCKS,
    UNSHARED,
    Encoder,
    InnerGroup,
    LayerBlocks,
    layers_of_groups,
    rematerialized,
)
from albert_jax.model.layers import Compute, Dense, Embeddings, split_keys
from albert_jax.model.sharding import split_rows

KeysValues = tuple[jax.Array, jax.Array]


class Memory(NamedTuple):
    """What the decoder sees of the source.

    Attributes:
      keys_values: for each group, inner group -> k_BSD and v_BSD of its cross-attention; with an
        axis L in front if every layer has its own.
      mask: bool [B,1,1,S], false for padding.
    """

    keys_values: tuple[dict[str, KeysValues], ...]
    mask: jax.Array


# For each group, the keys and values [L,B,S,D] of the target so far, L counting inner groups too.
Cache = tuple[KeysValues, ...]


class DecoderGroup(nnx.Module):
    """A group of adjacent layers; `inner_group_0` and so on hold the decoder's own blocks."""

    def __init__(self, config: ModelConfig, num_layers: int, *, compute: Compute, rngs: nnx.Rngs):
        """Creates the cross-attention, and the other blocks unless they are the encoder's."""
        self.num_layers, self.share = num_layers, config.share
        self.remat, self.unroll = compute.remat, min(compute.unroll, num_layers)
        own = {} if config.decoder.share_encoder else BLOCKS
        self.own_names = (*own, "cross_attention")
        self.inner_names = tuple(f"inner_group_{i}" for i in range(config.inner_group_num))
        for name in self.inner_names:
            classes = {**own, "cross_attention": Attention}
            inner = InnerGroup(config, num_layers, classes, compute=compute, rngs=rngs)
            setattr(self, name, inner)

    def memory(self, x_BSD: jax.Array) -> dict[str, KeysValues]:
        """Returns the keys and values of the source for every inner group; see `Memory`."""

        def of(inner: str) -> KeysValues:
            block = getattr(self, inner).cross_attention
            if "cross_attention" not in UNSHARED[self.share]:
                return block.keys_values(x_BSD)
            graphdef, weights_L = nnx.split(block)
            return jax.vmap(lambda w: nnx.merge(graphdef, w).keys_values(x_BSD))(weights_L)

        return {inner: of(inner) for inner in self.inner_names}

    def __call__(
        self,
        x_BTD: jax.Array,
        memory: dict[str, KeysValues],
        masks: tuple[jax.Array, jax.Array],
        encoder_blocks: Mapping[tuple[str, str], nnx.Module],
        dropout_keys_B: jax.Array | None,
        cache: KeysValues | None,
        position: jax.Array | int,
    ) -> tuple[jax.Array, KeysValues | None]:
        """Maps x_BTD to x_BTD, and the cache to one that holds these positions too.

        Args:
          x_BTD: the residual stream; rows of one source are adjacent.
          memory: `memory` of the sources.
          masks: of self-attention, bool [1,1,T,S], and of the sources, [B,1,1,S].
          encoder_blocks: those of the encoder's group; the decoder's own take their place.
          dropout_keys_B: one key per row; None for no dropout.
          cache: None if x holds the whole target.
          position: the first of x in the target, if there is a cache.
        """
        own = {
            (inner, name): getattr(getattr(self, inner), name)
            for inner in self.inner_names
            for name in self.own_names
        }
        blocks = LayerBlocks({**encoder_blocks, **own}, self.share)
        self_mask, source_mask = masks
        count = len(self.inner_names)
        is_stacked = "cross_attention" in UNSHARED[self.share]

        def layer(carry: tuple[jax.Array, KeysValues | None], scanned: Any) -> Any:
            x_BTD, cache = carry
            number, layer_keys_B, weights, memory_of_layer = scanned
            keys = split_keys(layer_keys_B, 3 * count)
            source = memory_of_layer if is_stacked else memory
            for i, inner in enumerate(self.inner_names):
                attention = blocks.block(inner, "attention", weights)
                kv = attention.keys_values(x_BTD)
                if cache is not None:
                    cache, kv = _extended(cache, kv, number * count + i, position)
                x_BTD = attention.attend_to(x_BTD, kv, self_mask, keys[3 * i])
                cross = blocks.block(inner, "cross_attention", weights)
                x_BTD = _attend_to_source(
                    cross, x_BTD, source[inner], source_mask, keys[3 * i + 1]
                )
                x_BTD = blocks.block(inner, "ffn", weights)(x_BTD, keys[3 * i + 2])
            return (split_rows(x_BTD), cache), None

        keys_LB = None if dropout_keys_B is None else split_keys(dropout_keys_B, self.num_layers)
        (x_BTD, cache), _ = jax.lax.scan(
            rematerialized(layer, self.remat),
            (x_BTD, cache),
            (
                jnp.arange(self.num_layers),
                keys_LB,
                blocks.weights_L,
                memory if is_stacked else None,
            ),
            unroll=self.unroll,
        )
        return x_BTD, cache


def _extended(
    cache: KeysValues, new: KeysValues, layer: jax.Array, position: jax.Array | int
) -> tuple[KeysValues, KeysValues]:
    """Returns the cache with a layer's new keys and values, and all of that layer's."""
    k, v = (
        jax.lax.dynamic_update_slice(old, x_BTD[None], (layer, 0, position, 0))
        for old, x_BTD in zip(cache, new, strict=True)
    )
    return (k, v), (k[layer], v[layer])


def _attend_to_source(
    cross: Attention,
    x_BTD: jax.Array,
    keys_values: KeysValues,
    mask_B11S: jax.Array,
    dropout_keys_B: jax.Array | None,
) -> jax.Array:
    """Returns x after cross-attention.

    Several rows of one source, a search's hypotheses, become positions of one row, so that the
    source's keys and values are not repeated.
    """
    sources = keys_values[0].shape[0]
    if sources == len(x_BTD):
        return cross.attend_to(x_BTD, keys_values, mask_B11S, dropout_keys_B)
    rows = x_BTD.reshape(sources, -1, x_BTD.shape[-1])
    return cross.attend_to(rows, keys_values, mask_B11S, None).reshape(x_BTD.shape)


class Decoder(nnx.Module):
    """All groups of the decoder, and its own embeddings if it has some."""

    def __init__(self, config: ModelConfig, *, compute: Compute, rngs: nnx.Rngs):
        """Creates the groups, and what the decoder does not share with the encoder."""
        decoder = config.decoder
        if not decoder.share_embeddings:
            self.embeddings = Embeddings(config, dtype=compute.dtype, rngs=rngs)
        self.shares = decoder.share_encoder
        if config.has_projection and not decoder.share_encoder:
            self.embed_proj = Dense(
                config.embedding_size, config.hidden_size, config, compute.dtype, rngs
            )
        counts = layers_of_groups(config.decoder_layers, config.num_hidden_groups)
        self.group_names = tuple(f"group_{i}" for i in range(len(counts)))
        for name, count in zip(self.group_names, counts, strict=True):
            setattr(self, name, DecoderGroup(config, count, compute=compute, rngs=rngs))

    def memory(self, x_BSD: jax.Array, mask_BS: jax.Array) -> Memory:
        """Returns what the decoder needs of the encoder's output for sources x_BSD.

        Args:
          x_BSD: the encoder's last hidden states.
          mask_BS: int32, 0 for padding.
        """
        groups = tuple(getattr(self, name).memory(x_BSD) for name in self.group_names)
        return Memory(groups, (mask_BS > 0)[:, None, None, :])

    def __call__(
        self,
        x_BTE: jax.Array,
        memory: Memory,
        encoder: Encoder,
        dropout_keys_B: jax.Array | None,
        cache: Cache | None = None,
        position: jax.Array | int = 0,
    ) -> tuple[jax.Array, Cache | None]:
        """Maps embedded targets x_BTE to hidden states x_BTD; see `DecoderGroup`."""
        shared = encoder if self.shares else self
        x_BTD = shared.embed_proj(x_BTE) if hasattr(shared, "embed_proj") else x_BTE
        x_BTD = split_rows(x_BTD)
        T = x_BTE.shape[1]
        S = T if cache is None else cache[0][0].shape[2]
        self_mask = jnp.arange(S)[None] <= position + jnp.arange(T)[:, None]
        masks = self_mask[None, None], memory.mask
        group_keys = split_keys(dropout_keys_B, len(self.group_names))
        caches: Sequence[KeysValues | None] = cache or [None] * len(self.group_names)
        found = []
        for g, name in enumerate(self.group_names):
            blocks = getattr(encoder, name).blocks() if self.shares else {}
            x_BTD, after = getattr(self, name)(
                x_BTD,
                memory.keys_values[g],
                masks,
                blocks,
                group_keys[g],
                caches[g],
                position,
            )
            found.append(after)
        return x_BTD, None if cache is None else tuple(found)

    def new_cache(self, rows: int, slots: int, dtype: jnp.dtype, hidden_size: int) -> Cache:
        """Returns an empty cache for `rows` targets of up to `slots` tokens."""

        def empty(name: str) -> KeysValues:
            group = getattr(self, name)
            shape = group.num_layers * len(group.inner_names), rows, slots, hidden_size
            return jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)

        return tuple(empty(name) for name in self.group_names)
