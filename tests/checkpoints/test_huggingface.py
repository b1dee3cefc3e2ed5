"""Directories of transformers: every head, every way to store weights, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file
from safetensors.torch import save_file
from support.hf_models import CLASSES, hf_model, scaled
from support.models import tiny_model
from support.params import equal_trees, random_params

from albert_jax.checkpoints.formats.hf_config import CLASSES as CLASS_OF
from albert_jax.checkpoints.formats.huggingface import read_hf, write_hf
from albert_jax.checkpoints.weights import Weights
from albert_jax.data.tokenizer import CLS, SEP
from albert_jax.model.albert import abstract_model
from albert_jax.model.heads import KINDS

pytestmark = [pytest.mark.torch, pytest.mark.slow]

CONFIG = tiny_model(num_hidden_groups=2)
IDS = torch.tensor([[CLS, 40, 41, 42, SEP, 50, 51, SEP], [CLS, 60, SEP, 61, 62, 63, 64, SEP]])
TYPES = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]])


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of AlbertForPreTraining."""
    path = tmp_path_factory.mktemp("hf") / "pretraining"
    hf_model(CONFIG).save_pretrained(path)
    return path


@pytest.fixture
def directory(pretraining: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(pretraining, tmp_path / "model"))


def logits(weights: Weights) -> np.ndarray:
    """What the head of a fine-tuned model says of IDS."""
    graphdef, _ = nnx.split(abstract_model(weights.config, weights.params), nnx.Param)
    model = nnx.merge(graphdef, weights.params)
    ids, types = jnp.asarray(IDS.numpy()), jnp.asarray(TYPES.numpy())
    positions = jnp.broadcast_to(jnp.arange(8)[None], ids.shape)
    x_BTD = model(ids, types, positions, jnp.ones_like(ids)).last_hidden_state
    if weights.kind in ("classification", "multiple_choice"):
        return np.asarray(model.classifier(model.pool(x_BTD, jnp.zeros((2, 1), jnp.int32))))[:, 0]
    return np.asarray(
        model.span(x_BTD) if weights.kind == "question_answering" else model.classifier(x_BTD)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["classification", "multiple_choice", "token_classification", "question_answering"]
)
def test_fine_tuned_heads_say_the_same(kind, tmp_path):
    labels = {0: "yes", 1: "no", 2: "perhaps"}
    extra: dict[str, Any] = (
        {} if kind in ("multiple_choice", "question_answering") else {"id2label": labels}
    )
    theirs = hf_model(CONFIG, CLASS_OF[kind], **extra)
    theirs.save_pretrained(tmp_path)
    weights = read_hf(tmp_path)
    assert weights.kind == kind
    assert set(weights.params) == {"embeddings", "encoder", *KINDS[kind]}
    assert weights.labels == (tuple(labels.values()) if extra else ())
    with torch.no_grad():
        if kind == "multiple_choice":
            output = theirs(IDS[:, None], token_type_ids=TYPES[:, None])
        else:
            output = theirs(IDS, token_type_ids=TYPES)
    if kind == "question_answering":
        expected = torch.stack([output.start_logits, output.end_logits], -1)
    else:
        expected = output.logits
    np.testing.assert_allclose(logits(weights), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_what_we_write(kind, tmp_path):
    params = random_params(CONFIG, KINDS[kind], num_labels=1 if kind == "multiple_choice" else 3)
    labels = ("B-PER", "I-PER", "O") if kind in ("token_classification", "classification") else ()
    weights = Weights(CONFIG, params, kind, labels=labels)
    write_hf(weights, tmp_path)
    assert CLASS_OF[kind] in CLASSES
    cls = getattr(transformers, f"Albert{CLASS_OF[kind]}")
    model, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert {name: list(problems) for name, problems in info.items() if problems} == {}
    assert tuple(model.config.id2label.values()) == labels or not labels
    # ... and back, by way of their own save_pretrained
    model.save_pretrained(tmp_path / "again")
    again = read_hf(tmp_path / "again")
    assert equal_trees(again.params, params)
    assert (again.config, again.kind, again.labels) == (CONFIG, kind, labels)
    auto = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(auto).__name__ == "AlbertModel"


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


def test_without_embedding_projection_theirs_is_the_identity(tmp_path):
    config = tiny_model(embedding_size=32)
    weights = Weights(config, random_params(config), "pretraining")
    write_hf(weights, tmp_path)
    theirs = transformers.AlbertModel.from_pretrained(tmp_path)
    embedded = theirs.embeddings(IDS)
    assert torch.equal(theirs.encoder.embedding_hidden_mapping_in(embedded), embedded)


def shard(directory: Path) -> None:
    """Splits the weights over two files with an index, as transformers does with large ones."""
    tensors = load_file(directory / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({n: torch.from_numpy(tensors[n]) for n in members}, directory / file)
    weight_map = {name: file for file, members in parts.items() for name in members}
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "model.safetensors").unlink()


def change_tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        file = directory / "model.safetensors"
        tensors = {name: torch.from_numpy(array) for name, array in load_file(file).items()}
        save_file(change(tensors) or tensors, file)

    return apply


def without(name: str) -> Callable[[Path], None]:
    return change_tensors(lambda tensors: {n: t for n, t in tensors.items() if n != name})


def as_bin(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    torch.save(
        {name: torch.from_numpy(array) for name, array in tensors.items()},
        directory / "pytorch_model.bin",
    )
    (directory / "model.safetensors").unlink()


WORDS = "albert.embeddings.word_embeddings.weight"


def with_old_copies(tensors: dict[str, Any]) -> None:
    """What transformers 4 saved besides."""
    tensors["albert.embeddings.position_ids"] = torch.arange(64)[None]
    tensors["predictions.decoder.weight"] = tensors[WORDS].clone()
    tensors["predictions.decoder.bias"] = tensors.pop("predictions.bias")


@pytest.mark.parametrize(
    "store", [shard, as_bin, change_tensors(with_old_copies)], ids=["shards", "bin", "version 4"]
)
def test_every_way_to_store_weights(store, directory, pretraining):
    store(directory)
    assert equal_trees(read_hf(directory).params, read_hf(pretraining).params)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype, directory):
    model = transformers.AlbertForPreTraining.from_pretrained(directory).to(dtype)
    model.save_pretrained(directory)
    params = read_hf(directory).params
    ours = params["pooler"]["kernel"]
    assert ours.dtype == np.float32
    theirs = model.get_parameter("albert.pooler.weight")
    np.testing.assert_array_equal(ours, theirs.detach().float().numpy().T)


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


BERT: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 96,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize("end", ["ForPreTraining", "ForMaskedLM", "Model"])
def test_bert_is_the_baseline(end, tmp_path):
    theirs = scaled(getattr(transformers, f"Bert{end}")(transformers.BertConfig(**BERT)))
    theirs.save_pretrained(tmp_path)
    # Google's own weights on the hub still have TensorFlow's names.
    change_tensors(
        lambda t: {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): v
            for n, v in t.items()
        }
    )(tmp_path)
    weights = read_hf(tmp_path)
    assert (weights.config.share, weights.config.hidden_act) == ("none", "gelu")
    assert weights.tokenizer is None
    graphdef, _ = nnx.split(abstract_model(weights.config, weights.params), nnx.Param)
    model = nnx.merge(graphdef, weights.params)
    ids, types = jnp.asarray(IDS.numpy()), jnp.asarray(TYPES.numpy())
    positions = jnp.broadcast_to(jnp.arange(8)[None], ids.shape)
    x_BTD = model(ids, types, positions, jnp.ones_like(ids)).last_hidden_state
    with torch.no_grad():
        output = theirs(IDS, token_type_ids=TYPES)
    if end == "Model":
        pooled = model.pool(x_BTD, jnp.zeros((2, 1), jnp.int32))[:, 0]
        np.testing.assert_allclose(x_BTD, output.last_hidden_state, atol=1e-5)
        np.testing.assert_allclose(pooled, output.pooler_output, atol=1e-5)
        return
    mlm = output.prediction_logits if end == "ForPreTraining" else output.logits
    np.testing.assert_allclose(model.mlm_logits(x_BTD, positions), mlm, atol=1e-5)
    if end == "ForPreTraining":
        sop = model.sop_logits(x_BTD, jnp.zeros((2, 1), jnp.int32))[:, 0]
        np.testing.assert_allclose(sop, output.seq_relationship_logits, atol=1e-5)


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


def pickled(directory: Path) -> None:
    as_bin(directory)
    torch.save({"run": Path}, directory / "pytorch_model.bin")


GROUP = "albert.encoder.albert_layer_groups.1.albert_layers.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_config(model_type="gpt2"), "model_type is 'gpt2'"),
        (change_config(architectures=["AlbertForGeneration"]), "AlbertForGeneration"),
        (change_config(architectures=["A", "B"]), "architectures are"),
        (change_config(hidden_size=...), "no hidden_size"),
        (change_config(hidden_size=48), "the config requires"),
        (change_config(hidden_size="32"), "model.hidden_size must be of type int"),
        (change_config(hidden_act="mish"), "model.hidden_act must be one of"),
        (change_config(position_embedding_type="relative_key"), "position_embedding_type"),
        (change_config(pad_token_id=1), "pad_token_id=1"),
        (change_config(is_decoder=True), "is_decoder=True"),
        (change_config(num_hidden_groups=3), "missing: albert.encoder.albert_layer_groups.2"),
        (change_config(num_hidden_groups=1), f"unexpected: {GROUP}.attention.LayerNorm.bias"),
        (change_config(num_hidden_layers=18, num_hidden_groups=14), "rounds"),
        (change_config(albert_jax={"share": "none"}), "does not agree"),
        (change_config(albert_jax={"share": "attention"}), "exists only in albert_jax"),
        (lambda d: (d / "config.json").write_text("{"), "not JSON"),
        (truncate, "model.safetensors: damaged"),
        (without(f"{GROUP}.ffn.weight"), f"missing: {GROUP}.ffn.wei"),
        (change_tensors(lambda t: t.update(extra=torch.ones(1))), "unexpected: extra"),
        (without("predictions.bias"), "missing: predictions.bias"),
        (change_tensors(lambda t: t.update({WORDS: torch.ones(96, 15)})), r"shape \(96, 15\)"),
        (
            change_tensors(lambda t: t.update({"predictions.bias": torch.arange(96)})),
            "int64, not floating",
        ),
        (
            change_tensors(lambda t: t.update({"predictions.decoder.weight": t[WORDS] + 1})),
            "predictions.decoder.weight differs",
        ),
        (point_outside, "is not a file of this directory"),
        (lambda d: (shard(d), (d / "model.safetensors.index.json").write_text("[]")), "no weight"),
        (pickled, "cannot be read as weights only"),
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
