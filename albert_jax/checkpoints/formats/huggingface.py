"""Hugging Face transformers directories: config, safetensors, tokenizer."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from albert_jax.checkpoints.formats.hf_config import (
    dialect_of,
    family_of,
    kind_of,
    kind_of_heads,
    labels_of,
    to_hf_config,
    to_model_config,
)
from albert_jax.checkpoints.formats.hf_encoder_decoder import (
    MODEL_TYPE,
    check_ends,
    decoder_settings,
    encoder_decoder_config,
    generation_config,
    halves_of,
    read_variables,
    task_of,
    write_variables,
)
from albert_jax.checkpoints.formats.hf_sentences import (
    read_sentence_task,
    sentence_files,
)
from albert_jax.checkpoints.formats.hf_tokenizer import (
    read_tokenizer,
    tokenizer_files,
    write_tokenizer,
)
from albert_jax.checkpoints.formats.variables import from_variables, to_variables
from albert_jax.checkpoints.weights import Weights
from albert_jax.data.files import read_object
from albert_jax.data.tokenizers import Vocabulary
from albert_jax.model.heads import heads_of

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
            "pytorch_model.bin.index.json")  # fmt: skip
_PROJECTION = "albert.encoder.embedding_hidden_mapping_in"
_POOLERS = {"albert": "albert.pooler", "bert": "bert.pooler.dense"}
# dialect -> tied copies of variables: name of the copy -> name of the original.
_COPIES = {
    "albert": {
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    },
    "bert": {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
}


def is_hf(directory: Path) -> bool:
    """Returns whether a directory is a Hugging Face transformers directory."""
    with contextlib.suppress(OSError, ValueError):
        return "model_type" in read_object(directory / "config.json")
    return False


def read_hf(directory: Path) -> Weights:
    """Reads ALBERT or BERT with any of transformers' heads.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the model is not supported, or a file is damaged.
    """
    path = directory / "config.json"
    values = read_object(path)
    if values.get("model_type") == MODEL_TYPE:
        return _read_encoder_decoder(directory, values)
    dialect, kind = family_of(values, str(path)), kind_of(values, str(path))
    config = to_model_config(values, str(path))
    tensors, files = _read_tensors(directory)
    variables = _plain_names(tensors, dialect, str(directory))
    if dialect == "albert" and config.embedding_size == config.hidden_size:
        if _is_identity(variables):
            del variables[f"{_PROJECTION}.weight"], variables[f"{_PROJECTION}.bias"]
        else:
            config = dataclasses.replace(config, project_embeddings=True)
    vocabulary = _vocabulary(directory)
    positions = config.max_position_embeddings
    task, task_files = read_sentence_task(directory, positions, vocabulary)
    pooler = [f"{_POOLERS[dialect]}.{part}" for part in ("weight", "bias")]
    if task and not any(np.any(variables.get(name, 1)) for name in pooler):
        variables = {name: array for name, array in variables.items() if name not in pooler}
    params = from_variables(variables, config, dialect, str(directory))
    kind = kind or kind_of_heads(heads_of(params))
    if task:
        kind = "embedding"
    files += [path, *task_files, *(tokenizer_files(directory) if vocabulary else [])]
    labels = labels_of(values, str(path))
    if labels and kind in ("classification", "token_classification"):
        classes = params["classifier"]["bias"].size
        if len(labels) != classes:
            raise ValueError(
                f"{path}: id2label names {len(labels)} classes, but the model has {classes}"
            )
    return Weights(
        config=config,
        params=params,
        kind=kind,
        vocabulary=vocabulary,
        labels=labels,
        task=task,
        files=tuple(files),
    )


def _read_encoder_decoder(directory: Path, values: Mapping[str, Any]) -> Weights:
    """Reads transformers' EncoderDecoderModel of two BERTs."""
    path = directory / "config.json"
    encoder, decoder = halves_of(values, str(path))
    to_model_config(decoder, str(path))  # refuses what is not supported
    config = to_model_config(encoder, str(path))
    config = dataclasses.replace(config, decoder=decoder_settings(values))
    tensors, files = _read_tensors(directory)
    params = read_variables(tensors, config, str(directory))
    vocabulary = _vocabulary(directory)
    check_ends(values, vocabulary, str(path))
    generation, task = directory / "generation_config.json", None
    if generation.is_file():
        positions = config.max_position_embeddings
        task = task_of(read_object(generation), positions, str(generation))
        files.append(generation)
    files += [path, *(tokenizer_files(directory) if vocabulary else [])]
    return Weights(config, params, "translation", vocabulary, task=task, files=tuple(files))


def write_hf(weights: Weights, directory: Path) -> None:
    """Writes a directory that transformers' `from_pretrained` reads.

    Raises:
      ValueError: if transformers cannot represent the model.
    """
    values = to_hf_config(weights)
    dialect = dialect_of(weights.config)
    if weights.kind == "translation":
        _write_encoder_decoder(weights, values, dialect, directory)
        return
    variables = to_variables(weights.params, weights.config, dialect)
    if dialect == "albert" and not weights.config.has_projection:
        # transformers always projects, and x·1 + 0 equals x exactly.
        variables[f"{_PROJECTION}.weight"] = np.eye(weights.config.hidden_size, dtype=np.float32)
        variables[f"{_PROJECTION}.bias"] = np.zeros(weights.config.hidden_size, np.float32)
    if weights.kind == "embedding":
        # transformers' models have a pooler; one that is missing, it warns of and draws anew.
        size = weights.config.hidden_size
        variables = {
            f"{_POOLERS[dialect]}.weight": np.zeros((size, size), np.float32),
            f"{_POOLERS[dialect]}.bias": np.zeros(size, np.float32),
        } | variables
    # transformers' models without heads have no such prefix.
    if weights.kind in ("encoder", "embedding"):
        variables = {name.removeprefix(f"{dialect}."): a for name, a in variables.items()}
    files = sentence_files(weights) if weights.kind == "embedding" else {}
    _write(directory, weights, variables, {"config.json": values, **files})


def _write_encoder_decoder(
    weights: Weights, bert: dict[str, Any], dialect: str, directory: Path
) -> None:
    """Writes transformers' EncoderDecoderModel."""
    if dialect != "bert":
        raise ValueError(
            "transformers' EncoderDecoderModel has no ALBERT decoder: its AlbertModel has neither "
            'causal nor cross-attention; only model.share="none" with model.embedding_size equal '
            "to model.hidden_size, which is BERT's shape, can be written"
        )
    values = encoder_decoder_config(bert, weights.config)
    generation = generation_config(values, weights)
    files = {"config.json": values, "generation_config.json": generation}
    _write(directory, weights, write_variables(weights), files)


def _write(
    directory: Path,
    weights: Weights,
    variables: dict[str, np.ndarray],
    files: Mapping[str, Any],
) -> None:
    """Writes the weights, the JSON files and the tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, values in files.items():
        text = json.dumps(values, indent=2, sort_keys=True) + "\n"
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text, "utf-8")
    save_file(variables, directory / "model.safetensors", metadata={"format": "pt"})
    if weights.vocabulary is not None:
        write_tokenizer(weights.vocabulary, directory, weights.config.max_position_embeddings)


def _plain_names(
    found: Mapping[str, np.ndarray], dialect: str, source: str
) -> dict[str, np.ndarray]:
    """Returns variables under the names of current full models, without tied copies."""
    prefix = f"{dialect}."
    is_bare = not any(name.startswith(prefix) for name in found)
    plain = {}
    for name, array in found.items():
        if name.endswith("position_ids"):  # a buffer saved by old releases: 0, 1, 2, …
            continue
        # Checkpoints converted from TensorFlow keep its names for norms.
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        plain[prefix + name if is_bare else name] = array
    for copy, original in _COPIES[dialect].items():
        if copy not in plain:
            continue
        array = plain.pop(copy)
        if not np.array_equal(plain.setdefault(original, array), array):
            raise ValueError(
                f"{source}: {copy} differs from {original}; albert_jax always ties the two"
            )
    return plain


def _is_identity(variables: Mapping[str, np.ndarray]) -> bool:
    weight = variables.get(f"{_PROJECTION}.weight", np.zeros((0, 1)))
    bias = variables.get(f"{_PROJECTION}.bias", np.ones(1))
    return np.array_equal(weight, np.eye(*weight.shape)) and not np.any(bias)


def _read_tensors(directory: Path) -> tuple[dict[str, np.ndarray], list[Path]]:
    """Returns the tensors of a directory, and the files that they are in."""
    path = next((directory / n for n in _WEIGHTS if (directory / n).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{str(directory)!r} has none of {', '.join(_WEIGHTS)}")
    read = _read_bin if ".bin" in path.name else _read_safetensors
    return _read_shards(path, read) if path.suffix == ".json" else (read(path), [path])


def _read_shards(
    index: Path, read: Callable[[Path], dict[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], list[Path]]:
    try:
        weight_map = read_object(index)["weight_map"]
        files = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{index}: not an index of shards (no weight_map)") from None
    found: dict[str, Any] = {}
    for file in files:
        if Path(file).name != file:
            raise ValueError(f"{index}: the shard {file!r} is not a file of this directory")
        if not (index.parent / file).is_file():
            raise FileNotFoundError(f"{index} names the shard {file!r}, which does not exist")
        found |= read(index.parent / file)
    lost = sorted(set(weight_map) ^ set(found))
    if lost:
        raise ValueError(f"{index} and its shards disagree about: {', '.join(lost[:8])}")
    return found, [index, *(index.parent / file for file in files)]


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged: {error}; restore it from a copy") from None


def _read_bin(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"{path}: reading it needs torch (pip install torch); or save the model as safetensors"
        ) from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch does not document its errors for damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be read as weights only: {reason}") from None
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise ValueError(f"{path}: cannot be read as weights only: it holds more than tensors")
    return {str(name): tensor.float().numpy() for name, tensor in tensors.items()}


def _vocabulary(directory: Path) -> Vocabulary | None:
    with contextlib.suppress(FileNotFoundError):
        return read_tokenizer(directory)
    return None
