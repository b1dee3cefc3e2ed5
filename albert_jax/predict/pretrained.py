"""Inference with a pretrained model: encodes texts and fills masks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.data.tokenizers import Tokenizer
from albert_jax.model.albert import abstract_model
from albert_jax.model.heads import heads_of
from albert_jax.tasks.features import FeatureRow, join, length_of, stack

_MASK_TEXT = "[MASK]"


class Filled(NamedTuple):
    """A candidate for a mask: its token text, its id and its probability."""

    piece: str
    id: int
    probability: float


class Encoded(NamedTuple):
    """NumPy results of encoding B texts padded to T tokens.

    Attributes:
      input_ids: int32 [B,T].
      attention_mask: int32 [B,T], 0 on padding.
      last_hidden_state: float32 [B,T,D].
      pooled_output: float32 [B,D], tanh of a dense layer over [CLS]; None if the model has no
        pooler.
      hidden_states: float32 [L+1,B,T,D], the encoder's input and each layer's output.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    last_hidden_state: np.ndarray
    pooled_output: np.ndarray | None
    hidden_states: np.ndarray


class PretrainedModel:
    """A model with its tokenizer; runs in float32 on one device.

    Attributes:
      config: the model's sizes.
      params: nested dict of arrays.
      heads: the heads on the encoder: some of `pooler`, `mlm`, `sop`, `classifier`, `span`.
    """

    def __init__(self, config: ModelConfig, params: Any, tokenizer: Tokenizer | None):
        """Combines the parts of a model; without a tokenizer, it can only encode ids."""
        self.config, self.params, self._tokenizer = config, params, tokenizer
        self.heads = heads_of(params)
        graphdef, _ = nnx.split(abstract_model(config, params), nnx.Param)

        def encode(params: Any, ids_BT: jax.Array, types_BT: jax.Array, mask_BT: jax.Array) -> Any:
            model = nnx.merge(graphdef, params)
            positions_BT = jnp.broadcast_to(jnp.arange(ids_BT.shape[1])[None], ids_BT.shape)
            output = model(ids_BT, types_BT, positions_BT, mask_BT, keep_hidden=True)
            if "pooler" not in self.heads:
                return output.last_hidden_state, None, output.hidden_states
            cls_B1 = jnp.zeros((len(ids_BT), 1), jnp.int32)
            pooled_BD = model.pool(output.last_hidden_state, cls_B1)[:, 0]
            return output.last_hidden_state, pooled_BD, output.hidden_states

        def mask_probs(params: Any, x_BTD: jax.Array, positions_BP: jax.Array) -> jax.Array:
            return jax.nn.softmax(nnx.merge(graphdef, params).mlm_logits(x_BTD, positions_BP))

        def in_order(params: Any, x_BTD: jax.Array) -> jax.Array:
            cls_B1 = jnp.zeros((len(x_BTD), 1), jnp.int32)
            return jax.nn.softmax(nnx.merge(graphdef, params).sop_logits(x_BTD, cls_B1))[:, 0, 0]

        self._encode, self._mask_probs = jax.jit(encode), jax.jit(mask_probs)
        self._in_order = jax.jit(in_order)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, from text to ids and back.

        Raises:
          ValueError: if the model came without one.
        """
        if self._tokenizer is None:
            raise ValueError("this model came without a vocabulary; use encode_ids")
        return self._tokenizer

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Encoded:
        """Encodes texts, each with its pair if given, as `[CLS] text [SEP] pair [SEP]`.

        "[MASK]" in a text stands for the mask token.

        Raises:
          ValueError: if given a single string, if the numbers of texts and pairs differ, or if a
            text is longer than the model's positions.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            raise ValueError("texts and pairs must be lists of strings; put one text in a list")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(pairs)} pairs")
        if not texts:
            raise ValueError("no texts to encode")
        firsts = [self._ids(text) for text in texts]
        seconds = [self._ids(pair) for pair in pairs] if pairs is not None else [[]] * len(firsts)
        return self._run(
            [join(self.tokenizer.special, a, b)[0] for a, b in zip(firsts, seconds, strict=True)]
        )

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[Filled]]:
        """Returns the `top_k` most likely tokens for each "[MASK]" of a text, in order.

        Raises:
          ValueError: if there is no mask in the text, or no masked LM head in the model.
        """
        if "mlm" not in self.heads or "decoder" in self.heads:  # whose output `mlm` then is
            others = ", ".join(head for head in self.heads if head != "mlm")
            raise ValueError(f"the model has no masked LM head, only {others}")
        encoded = self([text])
        positions = np.flatnonzero(encoded.input_ids[0] == self.tokenizer.special.mask)
        if not positions.size:
            raise ValueError(f"no {_MASK_TEXT} in {text!r}")
        probs_PV = np.asarray(
            self._mask_probs(self.params, encoded.last_hidden_state, positions[None])
        )[0, :, : self.tokenizer.vocab_size]  # a model may have more rows than there are tokens
        best_PK = np.argsort(-probs_PV, axis=-1)[:, :top_k]
        return [
            [
                Filled(piece, int(i), float(probs[i]))
                for i, piece in zip(best, self.tokenizer.pieces(best.tolist()), strict=True)
            ]
            for best, probs in zip(best_PK, probs_PV, strict=True)
        ]

    def in_order(self, firsts: Sequence[str], seconds: Sequence[str]) -> np.ndarray:
        """Returns the probability [B] that each second text follows the first.

        For a model trained on next-sentence prediction: that they are from the same document.

        Raises:
          ValueError: if the model has no sentence head, or as calling the model does.
        """
        if "sop" not in self.heads:
            raise ValueError(f"the model has no sentence head, only {', '.join(self.heads)}")
        return np.asarray(self._in_order(self.params, self(firsts, seconds).last_hidden_state))

    def _ids(self, text: str) -> list[int]:
        """Returns the ids of the text between masks, and of the masks."""
        parts = [self.tokenizer.encode(part) for part in text.split(_MASK_TEXT)]
        return parts[0] + [i for part in parts[1:] for i in (self.tokenizer.special.mask, *part)]

    def _run(self, rows: list[FeatureRow]) -> Encoded:
        longest = max(length_of(row) for row in rows)
        names = ("input_ids", "token_type_ids", "attention_mask")
        return self.encode_ids(*(stack([r[name] for r in rows], name, longest) for name in names))

    def encode_ids(
        self, input_ids: np.ndarray, token_type_ids: np.ndarray, attention_mask: np.ndarray
    ) -> Encoded:
        """Encodes integer ids [B,T]; the mask is 1 on tokens and 0 on the padding after them.

        Raises:
          ValueError: if there are more tokens than the model has positions.
        """
        length, limit = input_ids.shape[1], self.config.max_position_embeddings
        if length > limit:
            raise ValueError(
                f"a text has {length} tokens, but the model only {limit} positions; shorten it"
            )
        # Widths are multiples of 32, so that few shapes are compiled.
        width = min(limit, -(-length // 32) * 32)
        padded = (
            np.pad(np.asarray(x, np.int32), ((0, 0), (0, width - length)))
            for x in (input_ids, token_type_ids, attention_mask)
        )
        last_BTD, pooled_BD, hidden_LBTD = jax.tree.map(
            np.asarray, self._encode(self.params, *padded)
        )
        return Encoded(
            input_ids, attention_mask, last_BTD[:, :length], pooled_BD, hidden_LBTD[:, :, :length]
        )
