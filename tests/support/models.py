"""Small settings and random batches that several tests share."""

import dataclasses
from typing import Any

import numpy as np

from albert_jax.config import Config, ModelConfig, config_from_dict

TINY = {
    "vocab_size": 96,
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def tiny_model(**changes: Any) -> ModelConfig:
    """A model small enough to compile in a second."""
    return dataclasses.replace(ModelConfig(), **(TINY | changes))


def tiny_config(**groups: dict[str, Any]) -> Config:
    """A run of the tiny model in float32; groups are merged over the defaults here."""
    values: dict[str, dict[str, Any]] = {
        "model": TINY,
        "data": {"path": "unused", "seq_len": 32},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 2},
        "train": {"batch_size": 8, "num_steps": 20, "dtype": "float32"},
    }
    merged = {name: values.get(name, {}) | groups.get(name, {}) for name in values | groups}
    return config_from_dict(merged)


def random_batch(
    batch_size: int = 8, seq_len: int = 32, vocab_size: int = 96, seed: int = 0
) -> dict[str, np.ndarray]:
    """Packed rows of two chunks and some padding, with masked slots and sentence labels."""
    rng = np.random.default_rng(seed)
    split, end = seq_len // 2 - 3, seq_len - 4
    segment_ids = np.zeros((batch_size, seq_len), np.int32)
    segment_ids[:, :split], segment_ids[:, split:end] = 1, 2
    position_ids = np.zeros((batch_size, seq_len), np.int32)
    position_ids[:, :split] = np.arange(split)
    position_ids[:, split:end] = np.arange(end - split)
    input_ids = rng.integers(5, vocab_size, (batch_size, seq_len)) * (segment_ids > 0)
    token_type_ids = (position_ids > 5).astype(np.int32)
    slots = np.stack([rng.choice(np.arange(1, end), 6, replace=False) for _ in range(batch_size)])
    weights = (rng.random((batch_size, 6)) < 0.8).astype(np.float32)
    weights[:, 0] = 1
    return {
        "input_ids": input_ids.astype(np.int32),
        "token_type_ids": token_type_ids,
        "position_ids": position_ids,
        "segment_ids": segment_ids,
        "mlm_positions": np.sort(slots).astype(np.int32),
        "mlm_labels": rng.integers(5, vocab_size, (batch_size, 6)).astype(np.int32),
        "mlm_weights": weights,
        "cls_positions": np.tile(np.array([0, split, 0], np.int32), (batch_size, 1)),
        "sentence_labels": rng.integers(0, 2, (batch_size, 3)).astype(np.int32),
        "sentence_weights": np.tile(np.array([1, 1, 0], np.float32), (batch_size, 1)),
    }
