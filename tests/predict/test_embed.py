"""Vectors of texts: alike in any company, by either pooling, from every source."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.finetuned import make_weights
from support.models import tiny_model
from support.texts import VOCAB_SIZE, make_sentence

import albert_jax
from albert_jax.config import TaskConfig
from albert_jax.config.embedding import EmbeddingConfig
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.export.write import write_export
from albert_jax.predict.finetuned import FinetunedModel

CONFIG = tiny_model(vocab_size=VOCAB_SIZE, num_hidden_layers=1)
TASK = TaskConfig("embedding/stsb", max_length=32, embedding=EmbeddingConfig(pooling="cls"))


@pytest.fixture(scope="module")
def tokenizer(vocabulary) -> Tokenizer:
    return load_tokenizer(vocabulary)


@pytest.fixture(scope="module")
def make_model(tokenizer: Tokenizer) -> Callable[..., FinetunedModel]:
    made: dict[Any, FinetunedModel] = {}

    def make(kind: str, task: TaskConfig | None = None) -> FinetunedModel:
        if (kind, task) not in made:
            weights = make_weights(kind, task=task, config=CONFIG)
            made[kind, task] = FinetunedModel(weights, weights.params, tokenizer)
        return made[kind, task]

    return make


def make_texts(count: int, longest: int = 5) -> list[str]:
    draw = random.Random(0)
    return [make_sentence(draw, 1, longest) for _ in range(count)]


def test_vectors_are_alike_alone_and_in_batches(make_model):
    model, texts = make_model("pretraining"), make_texts(70)
    found = model.embed(texts)
    assert (found.shape, found.dtype) == ((70, CONFIG.hidden_size), np.float32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)
    for i in (0, 9, 18):
        np.testing.assert_allclose(model.embed([texts[i]])[0], found[i], atol=1e-5)
    np.testing.assert_allclose(model.embed(texts[::-1])[::-1], found, atol=1e-5)
    assert np.abs(found[1:] - found[0]).max(-1).min() > 1e-3
    # ... and beside the longest text, so with all the padding there can be
    long = model.embed([texts[3], " ".join(texts)[:100]])
    np.testing.assert_allclose(long[0], found[3], atol=1e-5)


def test_both_poolings_are_those_of_the_hidden_states(make_model):
    model, texts = make_model("pretraining"), make_texts(5)
    _, mask_BT, x_BTD, _, _ = model(texts)
    mean_BD = np.stack([x[mask > 0].mean(0) for x, mask in zip(x_BTD, mask_BT, strict=True)])
    wanted = {"mean": mean_BD, "cls": x_BTD[:, 0]}
    for pooling, x_BD in wanted.items():
        plain = model.embed(texts, pooling, normalize=False)
        np.testing.assert_allclose(plain, x_BD, atol=1e-5)
        unit = x_BD / np.linalg.norm(x_BD, axis=-1, keepdims=True)
        np.testing.assert_allclose(model.embed(texts, pooling=pooling), unit, atol=1e-5)
    np.testing.assert_array_equal(model.embed(texts), model.embed(texts, "mean"))


def test_long_texts_are_cut_with_a_warning(make_model):
    model, tokenizer = make_model("pretraining"), make_model("pretraining").tokenizer
    long = " ".join(make_texts(40))
    assert len(tokenizer.encode(long)) > CONFIG.max_position_embeddings
    with pytest.warns(UserWarning, match="1 of 2 texts were cut to 64 tokens"):
        found = model.embed([long, "tan"], normalize=False)
    special, kept = tokenizer.special, tokenizer.encode(long)[:62]
    ids = np.array([[special.cls, *kept, special.sep]], np.int32)
    x_1TD = model.encode_ids(ids, np.zeros_like(ids), np.ones_like(ids)).last_hidden_state
    np.testing.assert_allclose(found[0], x_1TD[0].mean(0), atol=1e-5)


def test_a_model_that_was_trained_to_embed_keeps_its_settings(make_model):
    model, texts = make_model("embedding", TASK), make_texts(3)
    np.testing.assert_array_equal(model.embed(texts), model.embed(texts, "cls"))
    assert np.abs(model.embed(texts) - model.embed(texts, "mean")).max() > 1e-3
    with pytest.warns(UserWarning, match="1 of 1 texts were cut to 32 tokens"):
        model.embed([" ".join(make_texts(9))])
    foreign = make_model("embedding")  # without settings
    np.testing.assert_array_equal(foreign.embed(texts), foreign.embed(texts, "mean"))


@pytest.mark.parametrize(
    ("texts", "pooling", "message"),
    [
        ("tan", None, "texts must be a list of strings"),
        ([], None, "no texts"),
        (["tan", 3], None, "texts must be strings, not 3"),
        (["tan"], "max", "pooling must be one of mean, cls; got 'max'"),
    ],
)
def test_what_is_refused(texts, pooling, message, make_model):
    with pytest.raises(ValueError, match=message):
        make_model("pretraining").embed(texts, pooling)


def test_a_model_without_a_vocabulary_is_refused(make_model):
    weights = make_weights("encoder", config=CONFIG)
    with pytest.raises(ValueError, match="came without a vocabulary"):
        FinetunedModel(weights, weights.params, None).embed(["tan"])


@pytest.mark.parametrize("kind", ["pretraining", "embedding"])
@pytest.mark.parametrize("to", ["stablehlo", "onnx"])
def test_exports_give_the_same_vectors(to, kind, make_model, tmp_path):
    model, texts = make_model(kind, TASK if kind == "embedding" else None), make_texts(40)
    write_export(model, tmp_path, to)
    found = albert_jax.load(tmp_path)
    np.testing.assert_allclose(found.embed(texts), model.embed(texts), atol=1e-4)
    other = "mean" if kind == "embedding" else "cls"
    np.testing.assert_allclose(found.embed(texts, other), model.embed(texts, other), atol=1e-4)


def test_an_export_of_another_task_says_what_it_holds(make_model, tmp_path):
    write_export(make_model("classification"), tmp_path, "stablehlo")
    with pytest.raises(ValueError, match="holds only the task of its model"):
        albert_jax.load(tmp_path).embed(["tan"])
