"""Vectors of texts, from an encoder compiled here or from an export."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from albert_jax.config import ModelConfig
from albert_jax.data.tokenizers import Tokenizer
from albert_jax.predict.program import TEXT, Batch, Outputs, Program, compiled
from albert_jax.tasks.batching import outputs_of
from albert_jax.tasks.embedding import POOLINGS, pooled
from albert_jax.tasks.features import join

BATCH = 32  # the largest number of sequences computed together; a power of two


@dataclass(frozen=True)
class Embedder:
    """Texts to vectors.

    Attributes:
      program: gives the vectors [B,D] of a batch by the names of `POOLINGS`.
      max_length: longest text [tokens].
      pooling: the one to use by default.
    """

    program: Program
    max_length: int
    pooling: str = POOLINGS[0]

    def __call__(
        self, texts: Sequence[str], tokenizer: Tokenizer, pooling: str | None
    ) -> tuple[np.ndarray, int]:
        """Returns float32 vectors [N,D] of texts, and how many texts were cut."""
        special = tokenizer.special
        ids = tokenizer.encode_batch(texts)
        rows, is_cut = zip(*(join(special, i, [], self.max_length) for i in ids), strict=True)
        size = self.program.rows(len(rows), BATCH)
        found = outputs_of(rows, size, self.max_length, self.program, self.program.width)
        return np.stack([vectors[pooling or self.pooling] for vectors in found]), sum(is_cut)


def embedder_of(config: ModelConfig, params: Any, exported: Program | None) -> Embedder:
    """Returns the embedder of a model, compiled from its parameters or with an export's program.

    Args:
      config: the model's sizes.
      params: its parameters.
      exported: gives `last_hidden_state` of a batch.
    """
    longest = config.max_position_embeddings
    if exported is None:
        # All that is fetched from the device are the vectors, and one program gives every kind.
        program = compiled(config, params, lambda model, b: _all_pooled(model.encode(b), b))
        return Embedder(dataclasses.replace(program, inputs=TEXT), longest)

    def run(batch: Batch) -> Outputs:
        places = np.zeros((len(batch["input_ids"]), 1), np.int32)  # for a model that fills masks
        return _all_pooled(
            exported({**batch, "mlm_positions": places})["last_hidden_state"], batch
        )

    return Embedder(Program(run, TEXT, exported.any_shape), longest)


def normalized(x_ND: np.ndarray) -> np.ndarray:
    """Returns the vectors with length 1; one of length 0 stays as it is."""
    lengths_N1 = np.linalg.norm(x_ND, axis=-1, keepdims=True)
    return x_ND / np.where(lengths_N1 > 0, lengths_N1, 1)


def _all_pooled(x_BTD: Any, batch: Batch) -> dict[str, Any]:
    return {pooling: pooled(x_BTD, batch["attention_mask"], pooling) for pooling in POOLINGS}
