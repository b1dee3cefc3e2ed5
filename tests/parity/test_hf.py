"""Directories of transformers, there and here: every head says the same, as do BERT's."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file, save_file
from support.hf_models import CLASSES, hf_model, scaled
from support.models import tiny_model
from support.params import equal_trees, random_params
from support.pieces import CLS, SEP

import albert_jax
from albert_jax.checkpoints.formats.hf_config import CLASSES as CLASS_OF
from albert_jax.checkpoints.formats.huggingface import read_hf, write_hf
from albert_jax.checkpoints.weights import Weights
from albert_jax.config import TaskConfig
from albert_jax.config.embedding import EmbeddingConfig
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.model.albert import abstract_model
from albert_jax.model.heads import KINDS

pytestmark = [pytest.mark.torch, pytest.mark.slow]

CONFIG = tiny_model(num_hidden_groups=2)
IDS = torch.tensor([[CLS, 40, 41, 42, SEP, 50, 51, SEP], [CLS, 60, SEP, 61, 62, 63, 64, SEP]])
TYPES = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory of AlbertForPreTraining."""
    hf_model(CONFIG).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in CLASS_OF])
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


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_their_encoder(pooling, vocabulary, tmp_path):
    tokenizer = load_tokenizer(vocabulary)
    config = tiny_model(vocab_size=tokenizer.vocab_size)
    task = TaskConfig("embedding/pairs", max_length=32, embedding=EmbeddingConfig(pooling))
    params = random_params(config, KINDS["embedding"])
    write_hf(Weights(config, params, "embedding", tokenizer.vocabulary, task=task), tmp_path)
    cls: Any = transformers.AlbertModel
    model, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert {name: list(problems) for name, problems in info.items() if problems} == {}
    texts = ["tan siling", "tan"]
    batch = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        texts, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        x_BTD = model(**batch).last_hidden_state
    weights_BT1 = batch["attention_mask"][..., None]
    mean_BD = (x_BTD * weights_BT1).sum(1) / weights_BT1.sum(1)
    wanted = torch.nn.functional.normalize(mean_BD if pooling == "mean" else x_BTD[:, 0], dim=-1)
    found = albert_jax.load(tmp_path).embed(texts)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_without_embedding_projection_theirs_is_the_identity(tmp_path):
    config = tiny_model(embedding_size=32)
    weights = Weights(config, random_params(config), "pretraining")
    write_hf(weights, tmp_path)
    theirs = transformers.AlbertModel.from_pretrained(tmp_path)
    embedded = theirs.embeddings(IDS)
    assert torch.equal(theirs.encoder.embedding_hidden_mapping_in(embedded), embedded)


def as_bin(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    torch.save(
        {name: torch.from_numpy(array) for name, array in tensors.items()},
        directory / "pytorch_model.bin",
    )
    (directory / "model.safetensors").unlink()


def test_weights_as_torch_saves_them(directory):
    expected = read_hf(directory).params
    as_bin(directory)
    assert equal_trees(read_hf(directory).params, expected)
    torch.save({"run": Path}, directory / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be read as weights only") as raised:
        read_hf(directory)
    assert str(directory) in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype, directory):
    model = transformers.AlbertForPreTraining.from_pretrained(directory).to(dtype)
    model.save_pretrained(directory)
    params = read_hf(directory).params
    ours = params["pooler"]["kernel"]
    assert ours.dtype == np.float32
    theirs = model.get_parameter("albert.pooler.weight")
    np.testing.assert_array_equal(ours, theirs.detach().float().numpy().T)


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
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = load_file(tmp_path / "model.safetensors")
    for new, name in old.items():
        tensors = {n.replace(new, name): tensor for n, tensor in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    weights = read_hf(tmp_path)
    assert (weights.config.share, weights.config.hidden_act) == ("none", "gelu")
    assert weights.vocabulary is None
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
