"""ALBERT: embeddings, encoder, and the requested heads."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.model.decoder import Cache, Decoder, Memory, Step
from albert_jax.model.encoder import Encoder
from albert_jax.model.heads import MaskedLMHead, gather, heads_of, make_head
from albert_jax.model.layers import Compute, Dense, Embeddings, dropout, split_keys

_COMPUTE = Compute()


class Output(NamedTuple):
    """The encoder's outputs: last_hidden_state x_BTD; hidden_states [L+1,B,T,D] or None."""

    last_hidden_state: jax.Array
    hidden_states: jax.Array | None


class Albert(nnx.Module):
    """Embeddings, encoder and the requested heads, each an attribute with the head's name."""

    pooler: Dense
    mlm: MaskedLMHead
    sop: Dense
    classifier: Dense
    span: Dense
    decoder: Decoder

    def __init__(
        self,
        config: ModelConfig,
        heads: Sequence[str] = (),
        *,
        num_labels: int = 2,
        compute: Compute = _COMPUTE,
        rngs: nnx.Rngs,
    ):
        """Creates the float32 parameters.

        Args:
          config: sizes and sharing.
          heads: "decoder", and names that `make_head` knows; `PRETRAINING` has those of
            pretraining.
          num_labels: classes of the head `classifier`.
          compute: how to compute; its dtype is that of matrix products and residual stream.
          rngs: source of the initial values.
        """
        self.cache_shape = compute.dtype, config.hidden_size  # of the decoder's, see `new_cache`
        self.embeddings = Embeddings(config, dtype=compute.dtype, rngs=rngs)
        self.encoder = Encoder(config, compute=compute, rngs=rngs)
        for name in heads:
            head = (
                Decoder(config, compute=compute, rngs=rngs)
                if name == "decoder"
                else make_head(name, config, num_labels, dtype=compute.dtype, rngs=rngs)
            )
            setattr(self, name, head)

    def __call__(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        segment_ids: jax.Array,
        dropout_keys_B: jax.Array | None = None,
        keep_hidden: bool = False,
    ) -> Output:
        """Encodes int32 ids [B,T].

        Attention stays within a segment; segment 0 is padding, so for rows of one text
        `segment_ids` is the usual attention mask. Dropout is on if `dropout_keys_B` are given,
        one key per row.
        """
        embed_keys, encoder_keys = split_keys(dropout_keys_B, 2)
        x_BTE = self.embeddings(input_ids, token_type_ids, position_ids, embed_keys)
        return Output(*self.encoder(x_BTE, segment_ids, encoder_keys, keep_hidden))

    def encode(
        self, batch: Mapping[str, jax.Array], dropout_keys_B: jax.Array | None = None
    ) -> jax.Array:
        """Returns x_BTD for a batch whose rows hold one text or pair each.

        Args:
          batch: `input_ids`, `token_type_ids` and `attention_mask`, int32 [B,T].
          dropout_keys_B: keys for the rows' dropout; None for no dropout.
        """
        ids_BT, types_BT, mask_BT = (
            batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")
        )
        positions_BT = jnp.broadcast_to(jnp.arange(ids_BT.shape[1])[None], ids_BT.shape)
        return self(ids_BT, types_BT, positions_BT, mask_BT, dropout_keys_B).last_hidden_state

    def pool(self, x_BTD: jax.Array, cls_positions: jax.Array) -> jax.Array:
        """Returns tanh of a dense layer on each chunk's [CLS]: pooled_BCD for positions [B,C]."""
        return jnp.tanh(self.pooler(gather(x_BTD, cls_positions)))

    def mlm_logits(self, x_BTD: jax.Array, positions_BP: jax.Array) -> jax.Array:
        """Returns float32 logits_BPV over the vocabulary at the given positions."""
        table_VE = self.embeddings.token_embed.embedding[...]
        return self.mlm(gather(x_BTD, positions_BP), table_VE)

    def sop_logits(self, x_BTD: jax.Array, cls_positions: jax.Array) -> jax.Array:
        """Returns float32 logits [B,C,2]; class 1 means that the segments were swapped."""
        return self.sop(self.pool(x_BTD, cls_positions)).astype(jnp.float32)

    def class_logits(
        self, x_BTD: jax.Array, rate: float = 0.0, dropout_keys_B: jax.Array | None = None
    ) -> jax.Array:
        """Returns float32 logits_BK of the classifier on the pooled [CLS], after dropout."""
        cls_B1 = jnp.zeros((x_BTD.shape[0], 1), jnp.int32)  # `len` is not symbolic
        pooled_BD = self.pool(x_BTD, cls_B1)[:, 0]
        return self.classifier(dropout(pooled_BD, rate, dropout_keys_B)).astype(jnp.float32)

    def tag_logits(
        self, x_BTD: jax.Array, rate: float = 0.0, dropout_keys_B: jax.Array | None = None
    ) -> jax.Array:
        """Returns float32 logits [B,T,K] of the classifier on every token, after dropout."""
        return self.classifier(dropout(x_BTD, rate, dropout_keys_B)).astype(jnp.float32)

    def span_logits(self, x_BTD: jax.Array) -> jax.Array:
        """Returns float32 logits [B,T,2] for a span to start, and to end, at each token."""
        return self.span(x_BTD).astype(jnp.float32)

    def memory(
        self, batch: Mapping[str, jax.Array], dropout_keys_B: jax.Array | None = None
    ) -> Memory:
        """Returns what the decoder needs of a batch of sources; see `encode` for the arguments."""
        return self.decoder.memory(self.encode(batch, dropout_keys_B), batch["attention_mask"])

    def decode(
        self,
        target_ids_BT: jax.Array,
        memory: Memory,
        dropout_keys_B: jax.Array | None = None,
    ) -> jax.Array:
        """Returns float32 logits_BTV of the token after each of the targets'.

        Args:
          target_ids_BT: int32, the targets from [CLS] on.
          memory: the sources.
          dropout_keys_B: one key per row; None for no dropout.
        """
        places_BT = jnp.broadcast_to(jnp.arange(target_ids_BT.shape[1])[None], target_ids_BT.shape)
        return self._decode(target_ids_BT, places_BT, memory, dropout_keys_B)[0]

    def decode_step(
        self, tokens_BK: jax.Array, memory: Memory, step: Step
    ) -> tuple[jax.Array, Cache]:
        """Returns float32 logits_BKV of the token after the last ones of K hypotheses.

        Args:
          tokens_BK: int32, the last token of each hypothesis.
          memory: the sources.
          step: where the tokens are, and what came before; the cache is returned with them.
        """
        places_BK = jnp.full(tokens_BK.shape, step.position)
        logits_BKV, cache = self._decode(tokens_BK, places_BK, memory, None, step)
        assert cache is not None
        return logits_BKV, cache

    def _decode(
        self,
        ids_BT: jax.Array,
        places_BT: jax.Array,
        memory: Memory,
        dropout_keys_B: jax.Array | None,
        step: Step | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        embed_keys, decoder_keys = split_keys(dropout_keys_B, 2)
        embeddings = getattr(self.decoder, "embeddings", self.embeddings)
        x_BTE = embeddings(ids_BT, jnp.zeros_like(ids_BT), places_BT, embed_keys)
        x_BTD, cache = self.decoder(x_BTE, memory, self.encoder, decoder_keys, step)
        # As one row: the gradient of the table is then one product, a quarter faster on a CPU.
        x_1ND = x_BTD.reshape(1, -1, x_BTD.shape[-1])
        logits_1NV = self.mlm(x_1ND, embeddings.token_embed.embedding[...])
        return logits_1NV.reshape(*ids_BT.shape, -1), cache


def abstract_model(
    config: ModelConfig, params: Mapping[str, Any], compute: Compute = _COMPUTE
) -> Albert:
    """Returns the model with these parameters (arrays or shapes), with shapes only."""
    heads = heads_of(params)
    labels = params["classifier"]["bias"].shape[0] if "classifier" in heads else 0
    return nnx.eval_shape(
        lambda: Albert(config, heads, num_labels=labels, compute=compute, rngs=nnx.Rngs(0))
    )
