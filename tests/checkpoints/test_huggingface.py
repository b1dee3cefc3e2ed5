"""Directories of transformers: every way to store weights, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.models import tiny_model
from support.params import equal_trees, random_params

from albert_jax.checkpoints.formats.huggingface import read_hf, write_hf
from albert_jax.checkpoints.weights import Weights

CONFIG = tiny_model(num_hidden_groups=2)


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of AlbertForPreTraining; parity/test_hf.py has one that transformers saved."""
    path = tmp_path_factory.mktemp("hf") / "pretraining"
    write_hf(Weights(CONFIG, random_params(CONFIG), "pretraining"), path)
    return path


@pytest.fixture
def directory(pretraining: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(pretraining, tmp_path / "model"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_hidden_groups": 4, "inner_group_num": 2},
        {"share": "none"},
        {"share": "none", "num_hidden_groups": 2, "inner_group_num": 2, "num_hidden_layers": 5},
        {"share": "none", "num_hidden_layers": 1},
        {"embedding_size": 32},
        {"embedding_size": 32, "project_embeddings": True},
        {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2, "hidden_act": "gelu"},
    ],
    ids=str,
)
def test_round_trip_is_exact(changes, tmp_path):
    weights = Weights(config := tiny_model(**changes), random_params(config), "pretraining")
    write_hf(weights, tmp_path)
    again = read_hf(tmp_path)
    assert again.config == config
    assert equal_trees(again.params, weights.params)


def shard(directory: Path) -> None:
    """Splits the weights over two files with an index, as transformers does with large ones."""
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({n: tensors[n] for n in members}, directory / file)
    weight_map = {name: file for file, members in parts.items() for name in members}
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "model.safetensors").unlink()


def change_tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        file = directory / "model.safetensors"
        tensors = load_file(file)
        save_file(change(tensors) or tensors, file)

    return apply


def without(name: str) -> Callable[[Path], None]:
    return change_tensors(lambda tensors: {n: t for n, t in tensors.items() if n != name})


WORDS = "albert.embeddings.word_embeddings.weight"


def with_old_copies(tensors: dict[str, Any]) -> None:
    """What transformers 4 saved besides."""
    tensors["albert.embeddings.position_ids"] = np.arange(64)[None]
    tensors["predictions.decoder.weight"] = tensors[WORDS].copy()
    tensors["predictions.decoder.bias"] = tensors.pop("predictions.bias")


@pytest.mark.parametrize(
    "store", [shard, change_tensors(with_old_copies)], ids=["shards", "version 4"]
)
def test_every_way_to_store_weights(store, directory, pretraining):
    store(directory)
    assert equal_trees(read_hf(directory).params, read_hf(pretraining).params)


def test_our_file_of_the_hub_has_a_pooler_beside_the_masked_lm(directory, pretraining):
    # As albert-base-v2 on the hub: AlbertForMaskedLM with a pooler and no sentence order head.
    change_tensors(lambda tensors: {n: t for n, t in tensors.items() if not n.startswith("sop")})(
        directory
    )
    values = json.loads((directory / "config.json").read_text())
    values["architectures"] = ["AlbertForMaskedLM"]
    (directory / "config.json").write_text(json.dumps(values))
    weights = read_hf(directory)
    assert weights.kind == "masked_lm"
    assert set(weights.params) == {"embeddings", "encoder", "pooler", "mlm"}


def change_config(**changes: Any) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        path = directory / "config.json"
        values = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))

    return apply


def truncate(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def point_outside(directory: Path) -> None:
    shard(directory)
    path = directory / "model.safetensors.index.json"
    path.write_text(path.read_text().replace("model-1-of-2", "../model-1-of-2"))


def lose_shard(directory: Path) -> None:
    shard(directory)
    (directory / "model-2-of-2.safetensors").unlink()


GROUP = "albert.encoder.albert_layer_groups.1.albert_layers.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_config(model_type="gpt2"), "model_type is 'gpt2'"),
        (change_config(architectures=["AlbertForGeneration"]), "AlbertForGeneration"),
        (change_config(architectures=["A", "B"]), "architectures are"),
        (change_config(hidden_size=...), "missing hidden_size"),
        (change_config(hidden_size=48), "the config requires"),
        (change_config(hidden_size="32"), "model.hidden_size must be of type int"),
        (change_config(hidden_act="mish"), "model.hidden_act must be one of"),
        (change_config(position_embedding_type="relative_key"), "position_embedding_type"),
        (change_config(is_decoder=True), "is_decoder=True"),
        (change_config(num_hidden_groups=3), "missing: albert.encoder.albert_layer_groups.2"),
        (change_config(num_hidden_groups=1), f"unexpected: {GROUP}.attention.LayerNorm.bias"),
        (change_config(num_hidden_layers=18, num_hidden_groups=14), "rounds"),
        (change_config(albert_jax={"share": "none"}), "does not agree"),
        (change_config(albert_jax={"share": "attention"}), "exists only in albert_jax"),
        (lambda d: (d / "config.json").write_text("{"), "not JSON"),
        (truncate, "model.safetensors: damaged"),
        (without(f"{GROUP}.ffn.weight"), f"missing: {GROUP}.ffn.wei"),
        (change_tensors(lambda t: t.update(extra=np.ones(1, np.float32))), "unexpected: extra"),
        (without("predictions.bias"), "missing: predictions.bias"),
        (
            change_tensors(lambda t: t.update({WORDS: np.ones((96, 15), np.float32)})),
            r"shape \(96, 15\)",
        ),
        (
            change_tensors(lambda t: t.update({"predictions.bias": np.arange(96)})),
            "int64, but must be floating",
        ),
        (
            change_tensors(lambda t: t.update({"predictions.decoder.weight": t[WORDS] + 1})),
            "predictions.decoder.weight differs",
        ),
        (point_outside, "is not a file of this directory"),
        (lambda d: (shard(d), (d / "model.safetensors.index.json").write_text("[]")), "no weight"),
    ],
)
def test_what_cannot_be_read_is_refused(change, message, directory):
    change(directory)
    with pytest.raises(ValueError, match=message) as raised:
        read_hf(directory)
    assert str(directory) in str(raised.value)


def test_missing_files_are_named(directory):
    lose_shard(directory)
    with pytest.raises(FileNotFoundError, match=r"model-2-of-2\.safetensors"):
        read_hf(directory)
    (directory / "model.safetensors.index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has none of model\.safetensors"):
        read_hf(directory)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": "attention"}, "share='attention' exists only in albert_jax"),
        ({"share": "ffn"}, "share='ffn' exists only in albert_jax"),
        ({"num_hidden_layers": 18, "num_hidden_groups": 14}, "transformers rounds"),
    ],
)
def test_what_they_cannot_represent_is_refused(changes, message, tmp_path):
    weights = Weights(config := tiny_model(**changes), random_params(config), "pretraining")
    with pytest.raises(ValueError, match=message):
        write_hf(weights, tmp_path / "out")
    assert not (tmp_path / "out").exists()
