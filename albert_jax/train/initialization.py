"""Beginning a run with the weights of another model."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from albert_jax.checkpoints.read import read
from albert_jax.checkpoints.run_dir import check_vocabulary
from albert_jax.checkpoints.weights import Weights, check_same_model
from albert_jax.config import Config, ModelConfig
from albert_jax.data.tokenizer import Tokenizer

SCRATCH = "scratch"  # config.init_from: random parameters, asked for outright


def wants_start(config: Config, workdir: Path) -> bool:
    """Whether a run in `workdir` has yet to begin, and with weights of another model."""
    folder = workdir / "checkpoints"
    has_begun = any(path.name.isdecimal() for path in folder.glob("*"))  # not one half written
    return not has_begun and config.init_from not in ("", SCRATCH)


def read_start(config: Config, tokenizer: Tokenizer) -> Weights:
    """Reads `config.init_from` and checks that it fits the run.

    The depth may be another where all layers share one set of parameters.

    Args:
      config: the run's settings.
      tokenizer: that of the run's data.

    Raises:
      FileNotFoundError: where there is no model.
      ValueError: where it cannot be read, or has other sizes or another vocabulary.
    """
    weights = read(config.init_from)
    theirs = _at_depth_of(weights.config, config.model)
    check_same_model(theirs, config.model, f"config.init_from={config.init_from!r}")
    if weights.tokenizer is None:
        raise ValueError(
            f"config.init_from={config.init_from!r} came without a SentencePiece vocabulary, so "
            "nothing tells whether its pieces are those of the data; put the file beside it"
        )
    vocabulary = Tokenizer(config.init_from, weights.tokenizer)
    check_vocabulary(tokenizer, vocabulary, "prepare the data with its SentencePiece model")
    return weights


def start_with(weights: Weights, params: Any) -> Any:
    """Freshly made parameters with those of `weights` in place of their like.

    Heads that the weights lack stay as they are; heads that the run lacks are left out.
    What both have must be of the same shapes.
    """
    return {
        part: jax.tree.map(_put, weights.params[part], fresh) if part in weights.params else fresh
        for part, fresh in params.items()
    }


def describe_start(weights: Weights, params: Mapping[str, Any]) -> str:
    """What `start_with` does, in words."""
    groups = {
        "taken": [part for part in params if part in weights.params],
        "new": [part for part in params if part not in weights.params],
        "not used": [part for part in weights.params if part not in params],
    }
    return "; ".join(f"{what}: {', '.join(parts)}" for what, parts in groups.items() if parts)


def _at_depth_of(theirs: ModelConfig, ours: ModelConfig) -> ModelConfig:
    """`theirs` with as many layers as `ours`, where that changes no parameter."""
    if all(model.share == "all" and model.num_hidden_groups == 1 for model in (theirs, ours)):
        return dataclasses.replace(theirs, num_hidden_layers=ours.num_hidden_layers)
    return theirs


def _put(array: np.ndarray, fresh: jax.Array) -> jax.Array:
    # Each process places its part; `device_put` would first compare all of it over the network.
    return jax.make_array_from_callback(array.shape, fresh.sharding, lambda index: array[index])
