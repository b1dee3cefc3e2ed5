"""Small encoder-decoders and batches of pairs, for the tests of translation."""

from typing import Any

import jax
import numpy as np
from flax import nnx
from support.models import tiny_model
from support.pieces import CLS, SEP

from albert_jax.config import ModelConfig
from albert_jax.config.translation import DecoderConfig
from albert_jax.model import Albert

HEADS = ("decoder", "mlm")


def translation_model(
    share_encoder: Any = True, share_embeddings: Any = True, layers: Any = 0, **changes: Any
) -> ModelConfig:
    """Sizes of a small encoder-decoder, with weights large enough for differences to show."""
    decoder = DecoderConfig(layers, share_encoder, share_embeddings)
    return tiny_model(**{"initializer_range": 0.2, "decoder": decoder} | changes)


def built(config: ModelConfig, seed: int = 0) -> Any:
    return Albert(config, HEADS, rngs=nnx.Rngs(seed))


def pair_batch(
    rows: int = 4, sources: int = 9, targets: int = 7, vocab_size: int = 96, seed: int = 0
) -> dict[str, Any]:
    """Pairs of random sentences of different lengths, padded."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, sources + 1, rows)
    lengths[0] = sources
    mask = (np.arange(sources) < lengths[:, None]).astype(np.int32)
    ids = draw.integers(5, vocab_size, (rows, sources)) * mask
    ids[:, 0], ids[np.arange(rows), lengths - 1] = CLS, SEP
    target_lengths = draw.integers(2, targets + 1, rows)
    target_lengths[-1] = targets
    weights = (np.arange(targets) < target_lengths[:, None]).astype(np.float32)
    words = draw.integers(5, vocab_size, (rows, targets)) * (weights > 0)
    labels = words.copy()
    labels[np.arange(rows), target_lengths - 1] = SEP
    inputs = np.concatenate([np.full((rows, 1), CLS), labels[:, :-1]], axis=1)
    return {
        "input_ids": ids.astype(np.int32),
        "token_type_ids": np.zeros_like(mask),
        "attention_mask": mask,
        "target_ids": (inputs * (weights > 0)).astype(np.int32),
        "target_labels": labels.astype(np.int32),
        "target_weights": weights,
        "weights": np.ones(rows, np.float32),
    }


def logits_of(model: Albert, batch: dict[str, Any]) -> jax.Array:
    """The logits of every target token, all at once."""
    return model.decode(batch["target_ids"], model.memory(batch))
