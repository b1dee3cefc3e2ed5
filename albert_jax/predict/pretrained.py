"""Inference with a pretrained model: encodes texts and fills masks."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from albert_jax.config import ModelConfig
from albert_jax.config.choices import one_of
from albert_jax.data.tokenizers import Tokenizer
from albert_jax.model.heads import heads_of
from albert_jax.predict.embedding import embedder_of, normalized
from albert_jax.predict.program import (
    TEXT,
    Program,
    compiled,
    encoder_outputs,
    fills_masks,
    input_axes,
)
from albert_jax.predict.texts import strings, warn_of_cut
from albert_jax.tasks.embedding import POOLINGS
from albert_jax.tasks.features import join, length_of, stack

_MASK_TEXT = "[MASK]"
LEAST_MASKS = 4  # positions to compute together, so that few shapes are compiled


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
      hidden_states: float32 [L+1,B,T,D], the encoder's input and each layer's output; empty,
        [0,B,T,D], from an export.
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

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        tokenizer: Tokenizer | None,
        encoder: Program | None = None,
        heads: Sequence[str] | None = None,
    ):
        """Combines the parts of a model.

        Args:
          config: its sizes.
          params: its parameters; those of an export may be empty.
          tokenizer: without one, the model can only encode ids.
          encoder: the program of an export; by default it is compiled from the parameters.
          heads: those of the program; by default those of the parameters.
        """
        self.config, self.params, self._tokenizer = config, params, tokenizer
        self.heads = heads_of(params) if heads is None else tuple(heads)
        self._embedder = embedder_of(config, params, encoder)
        if encoder is None:
            outputs = partial(encoder_outputs, heads=self.heads, keep_hidden=True)
            inputs = input_axes("encoder", self.heads)
            encoder = compiled(config, params, outputs, tuple(inputs))
        self._encoder = encoder

    @property
    def has_tokenizer(self) -> bool:
        """Whether the model came with a tokenizer."""
        return self._tokenizer is not None

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
        batch = self._batch(texts, pairs)
        return self.encode_ids(*(batch[name] for name in TEXT))

    def embed(
        self, texts: Sequence[str], pooling: str | None = None, normalize: bool = True
    ) -> np.ndarray:
        """Returns a vector for each text, float32 [B,D].

        Texts longer than the model's positions, or than those it was trained to embed, are cut,
        with a warning.

        Args:
          texts: any number.
          pooling: `mean`, over all tokens, special ones too; or `cls`, the last hidden state of
            [CLS]. By default what the model was trained with, else the mean.
          normalize: whether the vectors have length 1, so that their products are cosines.

        Raises:
          ValueError: if `texts` is not a list of strings or is empty, or there is no such pooling.
        """
        texts = strings("texts", texts)
        if pooling is not None:
            one_of("pooling", pooling, POOLINGS)
        vectors_BD, cut = self._embedder(texts, self.tokenizer, pooling)
        warn_of_cut(cut, len(texts), self._embedder.max_length)
        return normalized(vectors_BD) if normalize else vectors_BD

    def _embed_as(self, max_length: int, pooling: str) -> None:
        """Sets the longest text [tokens] and the default pooling."""
        self._embedder = dataclasses.replace(
            self._embedder, max_length=max_length, pooling=pooling
        )

    def fill_mask(self, text: str, top_k: int = 5) -> list[list[Filled]]:
        """Returns the `top_k` most likely tokens for each "[MASK]" of a text, in order.

        Raises:
          ValueError: if there is no mask in the text, or no masked LM head in the model.
        """
        if not fills_masks(self.heads):
            others = ", ".join(head for head in self.heads if head != "mlm") or "an encoder"
            raise ValueError(f"the model has no masked LM head, only {others}")
        batch = self._batch([text])
        positions = np.flatnonzero(batch["input_ids"][0] == self.tokenizer.special.mask)
        if not positions.size:
            raise ValueError(f"no {_MASK_TEXT} in {text!r}")
        count = self._encoder.rows(positions.size, self.config.max_position_embeddings)
        count = count if self._encoder.any_shape else max(count, LEAST_MASKS)
        batch["mlm_positions"] = np.resize(positions, (1, count))
        logits_PV = self._run(batch)["mlm_logits"][0, : positions.size]
        # Softmax over the whole table, which may have more rows than there are tokens.
        probs_PV = softmax(logits_PV, axis=-1)[:, : self.tokenizer.vocab_size]
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
        outputs = self._run(self._batch(firsts, seconds))
        return softmax(outputs["sop_logits"], axis=-1)[:, 0]

    def _ids(self, text: str) -> list[int]:
        """Returns the ids of the text between masks, and of the masks."""
        parts = [self.tokenizer.encode(part) for part in text.split(_MASK_TEXT)]
        return parts[0] + [i for part in parts[1:] for i in (self.tokenizer.special.mask, *part)]

    def _batch(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Returns the ids of texts and pairs, padded to the longest."""
        if isinstance(texts, str) or isinstance(pairs, str):
            raise ValueError("texts and pairs must be lists of strings; put one text in a list")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(pairs)} pairs")
        if not texts:
            raise ValueError("no texts to encode")
        firsts = [self._ids(text) for text in texts]
        seconds = [self._ids(pair) for pair in pairs] if pairs is not None else [[]] * len(firsts)
        special = self.tokenizer.special
        rows = [join(special, a, b)[0] for a, b in zip(firsts, seconds, strict=True)]
        longest = max(map(length_of, rows))
        return {name: stack([row[name] for row in rows], name, longest) for name in TEXT}

    def encode_ids(
        self, input_ids: np.ndarray, token_type_ids: np.ndarray, attention_mask: np.ndarray
    ) -> Encoded:
        """Encodes integer ids [B,T]; the mask is 1 on tokens and 0 on the padding after them.

        Raises:
          ValueError: if there are more tokens than the model has positions.
        """
        arrays = (input_ids, token_type_ids, attention_mask)
        found = self._run(dict(zip(TEXT, arrays, strict=True)))
        last_BTD = found["last_hidden_state"]
        hidden_LBTD = found.get("hidden_states", last_BTD[None][:0])
        pooled_BD = found.get("pooled_output")
        return Encoded(input_ids, attention_mask, last_BTD, pooled_BD, hidden_LBTD)

    def _run(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the encoder's outputs without the padding that a compiled shape has."""
        rows, length = batch["input_ids"].shape
        limit = self.config.max_position_embeddings
        if length > limit:
            raise ValueError(
                f"a text has {length} tokens, but the model only {limit} positions; shorten it"
            )
        width = self._encoder.width(length, limit)
        padded = {name: np.pad(batch[name], ((0, 0), (0, width - length))) for name in TEXT}
        padded["mlm_positions"] = batch.get("mlm_positions", np.zeros((rows, 1), np.int32))
        found = self._encoder(padded)
        cut = {"last_hidden_state": np.s_[:, :length], "hidden_states": np.s_[:, :, :length]}
        return {name: array[cut.get(name, ...)] for name, array in found.items()}
