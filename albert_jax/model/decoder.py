"""The decoder: causal self-attention, attention to the source, feed-forward.

Its self-attention and feed-forward blocks are the encoder's, or its own, as `config.decoder`
says; cross-attention is always its own. Like the encoder's, each kind of block has one set of
weights for all layers of a group, or one per layer, depending on `share`.

Letters as in `model/__init__.py`; S is a position of the source or of the cache, K a hypothesis.
"""

from collections.abc import Mapping
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


# For each group, the keys and values of the targets so far, [L,I,B,S,K,D]: I inner groups, S
# tokens, K hypotheses of a source. What hypothesis k wrote stays in slot k, whoever continues it.
Cache = tuple[KeysValues, ...]


class Step(NamedTuple):
    """One more token of K hypotheses for each source.

    Attributes:
      cache: what was written so far.
      position: the place of the token in the target.
      seen: bool [B,K,S,K], which slots hold the tokens of each hypothesis, this one included.
    """

    cache: Cache
    position: jax.Array | int
    seen: jax.Array


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
        """Maps x_BTD to x_BTD, and the cache to one that holds these tokens too.

        Args:
          x_BTD: the residual stream; with a cache, T are the hypotheses of a source.
          memory: `memory` of the sources.
          masks: of self-attention, bool [1,1,T,T], with a cache [B,1,T,S·T]; of the sources,
            [B,1,1,S].
          encoder_blocks: those of the encoder's group; the decoder's own take their place.
          dropout_keys_B: one key per row; None for no dropout.
          cache: None if x holds the whole target.
          position: the place of the tokens in the target, if there is a cache.
        """
        blocks = LayerBlocks({**encoder_blocks, **self._own_blocks()}, self.share)
        self_mask, source_mask = masks
        is_stacked = "cross_attention" in UNSHARED[self.share]

        def layer(x_BTD: jax.Array, scanned: Any) -> tuple[jax.Array, list[KeysValues] | None]:
            layer_keys_B, weights, memory_of_layer, cache_of_layer = scanned
            keys = split_keys(layer_keys_B, 3 * len(self.inner_names))
            source = memory_of_layer if is_stacked else memory
            written = []
            for i, inner in enumerate(self.inner_names):
                attention = blocks.block(inner, "attention", weights)
                seen = new = attention.keys_values(x_BTD)
                if cache_of_layer is not None:
                    seen = tuple(
                        _with_tokens(pool[i], x, position)
                        for pool, x in zip(cache_of_layer, new, strict=True)
                    )
                    written.append(new)
                x_BTD = attention.attend_to(x_BTD, seen, self_mask, keys[3 * i])
                cross = blocks.block(inner, "cross_attention", weights)
                x_BTD = cross.attend_to(x_BTD, source[inner], source_mask, keys[3 * i + 1])
                x_BTD = blocks.block(inner, "ffn", weights)(x_BTD, keys[3 * i + 2])
            return split_rows(x_BTD), written or None

        keys_LB = None if dropout_keys_B is None else split_keys(dropout_keys_B, self.num_layers)
        scanned = keys_LB, blocks.weights_L, memory if is_stacked else None, cache
        x_BTD, written = jax.lax.scan(
            rematerialized(layer, self.remat),
            x_BTD,
            scanned,
            length=self.num_layers,
            unroll=self.unroll,
        )
        return x_BTD, None if cache is None else _with_layers(cache, written, position)

    def _own_blocks(self) -> dict[tuple[str, str], nnx.Module]:
        return {
            (inner, name): getattr(getattr(self, inner), name)
            for inner in self.inner_names
            for name in self.own_names
        }


def _with_layers(
    cache: KeysValues, written: list[KeysValues], position: jax.Array | int
) -> KeysValues:
    """Returns the cache with what the layers wrote, [L,B,K,D] for each inner group.

    One write for all layers: a loop that carried the cache would copy it in each of them.
    """
    new = (jnp.stack(part, axis=1)[:, :, :, None] for part in zip(*written, strict=True))
    k, v = (
        jax.lax.dynamic_update_slice(pool, x, (0, 0, 0, position, 0, 0))
        for pool, x in zip(cache, new, strict=True)
    )
    return k, v


def _with_tokens(pool_BSKD: jax.Array, x_BKD: jax.Array, position: jax.Array | int) -> jax.Array:
    """Returns the keys or values [B,S·K,D] of all slots, with those of one more token."""
    B, S, K, D = pool_BSKD.shape
    pool_BSKD = jax.lax.dynamic_update_slice(pool_BSKD, x_BKD[:, None], (0, position, 0, 0))
    return pool_BSKD.reshape(B, S * K, D)


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
        step: Step | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """Maps embedded targets x_BTE to hidden states x_BTD; with `step`, one token of each."""
        shared = encoder if self.shares else self
        x_BTD = shared.embed_proj(x_BTE) if hasattr(shared, "embed_proj") else x_BTE
        x_BTD = split_rows(x_BTD)
        B, T = x_BTE.shape[:2]
        if step is None:
            self_mask = (jnp.arange(T)[None] <= jnp.arange(T)[:, None])[None, None]
        else:
            self_mask = step.seen.reshape(B, 1, T, -1)
        masks = self_mask, memory.mask
        group_keys = split_keys(dropout_keys_B, len(self.group_names))
        found = []
        for g, name in enumerate(self.group_names):
            x_BTD, cache = getattr(self, name)(
                x_BTD,
                memory.keys_values[g],
                masks,
                getattr(encoder, name).blocks() if self.shares else {},
                group_keys[g],
                step and step.cache[g],
                step.position if step else 0,
            )
            found.append(cache)
        return x_BTD, tuple(found) if step else None

    def new_cache(self, shape: tuple[int, int, int], dtype: jnp.dtype, hidden_size: int) -> Cache:
        """Returns an empty cache; `shape` is B sources, S tokens, K hypotheses."""

        def empty(name: str) -> KeysValues:
            group = getattr(self, name)
            whole = group.num_layers, len(group.inner_names), *shape, hidden_size
            return jnp.zeros(whole, dtype), jnp.zeros(whole, dtype)

        return tuple(empty(name) for name in self.group_names)


def lengthened(cache: Cache, tokens: int) -> Cache:
    """Returns the cache with room for so many tokens of each hypothesis."""

    def pad(pool: jax.Array) -> jax.Array:
        return jnp.pad(pool, [(0, 0)] * 3 + [(0, tokens - pool.shape[3])] + [(0, 0)] * 2)

    return jax.tree.map(pad, cache)
