"""Rows and runs that are ready in seconds, for tests of what reads them."""

from pathlib import Path
from typing import Any

from support.texts import VOCAB_SIZE, write_corpus, write_vocabulary

from albert_jax.config import Config, config_from_dict
from albert_jax.prepare.pipeline import prepare
from albert_jax.train import make_experiment
from albert_jax.train.loop import train


def prepare_rows(folder: Path, documents: int = 120) -> Path:
    """Packed rows of 64 slots of random text, a fifth of them held out."""
    corpus = write_corpus(folder / "texts.jsonl", documents)
    tokenizer = write_vocabulary(folder / "tokenizer.model")
    prepare(
        [str(corpus)],
        folder / "rows",
        tokenizer=str(tokenizer),
        seq_len=64,
        validation_fraction=0.2,
        num_workers=1,
    )
    return folder / "rows"


def tiny_settings(rows: Path, **groups: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings of a pretraining run on these rows; groups are merged over those here."""
    values: dict[str, dict[str, Any]] = {
        "model": {
            "vocab_size": VOCAB_SIZE,
            "embedding_size": 16,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
        },
        "data": {"path": str(rows), "seq_len": 64},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 2},
        "train": {
            "batch_size": 8,
            "num_steps": 12,
            "dtype": "float32",
            "log_every": 2,
            "eval_every": 6,
            "checkpoint_every": 6,
        },
    }
    return {name: values.get(name, {}) | groups.get(name, {}) for name in values | groups}


# What the fixture `trained_run` was trained with, besides `tiny_settings`: its checkpoints fall
# between logged steps, and dropout is among what a resumed run must draw alike.
TRAINED: dict[str, dict[str, Any]] = {
    "model": {"hidden_dropout_prob": 0.1},
    "train": {"log_every": 3, "checkpoint_every": 4, "keep_checkpoints": 9},
}


def trained_settings(rows: Path, **groups: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of `trained_run`, or of one that differs from it in these."""
    names = TRAINED | groups
    return tiny_settings(rows, **{n: TRAINED.get(n, {}) | groups.get(n, {}) for n in names})


def write_config(path: Path, settings: dict[str, Any]) -> Path:
    """A config file of these settings."""
    lines = ("from ml_collections import ConfigDict\n\n", "def get_config():")
    path.write_text("\n".join((*lines, f"    return ConfigDict({settings!r})\n")))
    return path


def tiny_config(rows: Path, **groups: dict[str, Any]) -> Config:
    return config_from_dict(tiny_settings(rows, **groups))


def tiny_run(rows: Path, workdir: Path, **groups: dict[str, Any]) -> Path:
    """Trains, and returns the run directory."""
    train(make_experiment(tiny_config(rows, **groups), workdir))
    return workdir
