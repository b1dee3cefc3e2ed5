"""Starting a run from the weights of another model."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.checkpoints.read import read
from albert_jax.checkpoints.run_dir import check_vocabulary
from albert_jax.checkpoints.weights import Weights, check_same_model
from albert_jax.config import Config, ModelConfig
from albert_jax.data.tokenizers import Tokenizer, tokenizer_of
from albert_jax.model.sharding import path_of

SCRATCH = "scratch"  # config.init_from: an explicit request for random parameters


def wants_start(config: Config, workdir: Path) -> bool:
    """Returns whether a run in `workdir` is new and starts from another model's weights."""
    folder = workdir / "checkpoints"
    has_begun = any(path.name.isdecimal() for path in folder.glob("*"))  # complete ones only
    return not has_begun and config.init_from not in ("", SCRATCH)


def read_start(config: Config, tokenizer: Tokenizer) -> Weights:
    """Reads `config.init_from` and checks that it fits the run.

    The depth may differ if all layers share one set of parameters, and the run may have more
    positions.

    Args:
      config: the run's settings.
      tokenizer: the tokenizer of the run's data.

    Raises:
      FileNotFoundError: if there is no model.
      ValueError: if it cannot be read, or has different sizes or a different vocabulary.
    """
    weights = read(config.init_from)
    theirs = _with_more_positions(_at_depth_of(weights.config, config.model), config.model)
    check_same_model(theirs, config.model, f"config.init_from={config.init_from!r}")
    if weights.vocabulary is None:
        raise ValueError(
            f"config.init_from={config.init_from!r} came without a vocabulary, so its tokens "
            "cannot be checked against those of the data; put its spiece.model or vocab.txt next "
            "to the weights"
        )
    theirs = tokenizer_of(weights.vocabulary, config.init_from)
    check_vocabulary(tokenizer, theirs, "prepare the data with its vocabulary")
    return weights


def start_with(weights: Weights, params: Any) -> Any:
    """Returns new parameters with the parts found in `weights` replaced by those weights.

    Heads missing from the weights, and parts of a decoder, keep their new parameters; heads
    missing from the run are dropped. Positions that the weights do not have are copies of those
    they have. Other parts found in both must have the same shapes.
    """
    return _replaced(_lengthened(weights.params, params), params)


def _replaced(given: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `fresh` with the leaves that `given` has."""
    return {
        name: leaf
        if name not in given
        else _replaced(given[name], leaf)
        if isinstance(leaf, Mapping)
        else _put(given[name], leaf)
        for name, leaf in fresh.items()
    }


def with_decoder(weights: Weights, config: ModelConfig) -> Weights:
    """Returns the weights with a decoder that begins as the encoder does, where it has its own.

    Cross-attention has no counterpart there and stays new. Weights that have a decoder stay as
    they are.

    Raises:
      ValueError: if the layers have weights of their own and the decoder is of another depth.
    """
    decoder = {}
    if not config.decoder.share_encoder:
        decoder |= weights.params["encoder"]
    if not config.decoder.share_embeddings:
        decoder["embeddings"] = weights.params["embeddings"]
    if "decoder" in weights.params or not decoder:
        return weights
    own_blocks = not config.decoder.share_encoder
    if own_blocks and config.share != "all" and config.decoder_layers != config.num_hidden_layers:
        raise ValueError(
            "config.task.translation.init_decoder: the decoder has "
            f"{config.decoder_layers} layers, but the encoder {config.num_hidden_layers} with "
            "weights of their own; set model.decoder.num_layers=0 or "
            "task.translation.init_decoder=False"
        )
    return weights._replace(params={**weights.params, "decoder": decoder})


def _lengthened(params: Any, fresh: Any) -> Any:
    """Returns parameters with as many positions as the new ones."""
    if "embeddings" not in fresh:
        return params
    given, new = (p["embeddings"]["position_embed"]["embedding"] for p in (params, fresh))
    if len(given) == len(new):
        return params
    longer = {"position_embed": {"embedding": given[np.arange(len(new)) % len(given)]}}
    return {**params, "embeddings": {**params["embeddings"], **longer}}


def repeat_positions(params: Any, known: int) -> Any:
    """Returns the parameters with the first `known` positions copied over those after them.

    Rows of the next length then start with attention to near neighbours as it was learnt on
    short rows, instead of positions that were never trained.

    Source: arXiv:2004.05150, section 5.
    """

    def repeat(path: tuple, leaf: jax.Array) -> jax.Array:
        if path_of(path) != "embeddings/position_embed/embedding":
            return leaf
        return leaf[jnp.arange(len(leaf)) % known]

    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    changed = jax.jit(partial(jax.tree_util.tree_map_with_path, repeat), out_shardings=shardings)
    return changed(params)


def describe_start(weights: Weights, params: Mapping[str, Any]) -> str:
    """Returns a description of what `start_with` does."""
    groups = {
        "taken": [part for part in params if part in weights.params],
        "new": [part for part in params if part not in weights.params],
        "not used": [part for part in weights.params if part not in params],
    }
    said = [f"{what}: {', '.join(parts)}" for what, parts in groups.items() if parts]
    if "decoder" in weights.params and weights.kind != "translation":
        said.append("the decoder's cross-attention is new")
    known = weights.config.max_position_embeddings
    count = len(params["embeddings"]["position_embed"]["embedding"])
    if count > known:
        said.append(f"positions {known} to {count - 1} begin as copies of the first {known}")
    return "; ".join(said)


def _at_depth_of(theirs: ModelConfig, ours: ModelConfig) -> ModelConfig:
    """Returns `theirs` with the depth of `ours`, if that changes no parameter."""
    if all(model.share == "all" and model.num_hidden_groups == 1 for model in (theirs, ours)):
        return dataclasses.replace(theirs, num_hidden_layers=ours.num_hidden_layers)
    return theirs


def _with_more_positions(theirs: ModelConfig, ours: ModelConfig) -> ModelConfig:
    """Returns `theirs` with the positions of `ours`, if those are more."""
    count = max(theirs.max_position_embeddings, ours.max_position_embeddings)
    return dataclasses.replace(theirs, max_position_embeddings=count)


def _put(array: np.ndarray, fresh: jax.Array) -> jax.Array:
    # Each process places its own part. `device_put` would first compare the whole array over the
    # network.
    return jax.make_array_from_callback(array.shape, fresh.sharding, lambda index: array[index])
