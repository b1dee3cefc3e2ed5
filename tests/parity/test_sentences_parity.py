"""sentence-transformers gives the same vectors: of our directories, and of its own read here."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.finetuned import make_weights
from support.hf_models import hf_model
from support.models import tiny_model
from support.texts import VOCAB_SIZE, WORDS

import albert_jax
from albert_jax.checkpoints.formats.hf_tokenizer import write_tokenizer
from albert_jax.checkpoints.formats.huggingface import read_hf, write_hf
from albert_jax.config import TaskConfig
from albert_jax.config.embedding import EmbeddingConfig
from albert_jax.convert import convert
from albert_jax.data.tokenizers import TextRules, Vocabulary, load_tokenizer

has_it = find_spec("sentence_transformers") is not None
needs_it = pytest.mark.skipif(not has_it, reason="needs sentence-transformers")
pytestmark = [pytest.mark.torch, pytest.mark.slow, needs_it]

LENGTH = 24
TEXTS = ["tan siling", "tan", "", "Tan SILING", "  tan \t siling\n", "Café naïve Zoë, ﬁ ½ Ａ",
         "我喜欢学习中文。", "日本語 한국어", "don't, (1,234.5) \"x\" – £5", "``x''", "😀",
         " ".join(WORDS[:7]), " ".join(WORDS * 3), "x" * 200]  # fmt: skip
CUT = rf"\d of {len(TEXTS)} texts were cut to {LENGTH} tokens"
SHAPES: dict[str, tuple[dict[str, Any], TextRules]] = {
    "albert": ({}, TextRules()),
    "bert": (
        {"share": "none", "embedding_size": 32},
        TextRules(do_lower_case=False, keep_accents=True),
    ),
}


@pytest.fixture(scope="module")
def contents(vocabulary: Path) -> bytes:
    """A SentencePiece model."""
    return vocabulary.read_bytes()


def load_theirs(directory: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), device="cpu")


def make_encoder(contents: bytes, folder: Path) -> Any:
    """Their first module, with an ALBERT of random weights."""
    from sentence_transformers.base.modules import Transformer

    write_tokenizer(Vocabulary("sentencepiece", contents, TextRules()), folder)
    hf_model(tiny_model(vocab_size=VOCAB_SIZE), "Model").save_pretrained(folder)
    return Transformer(str(folder), max_seq_length=LENGTH)


def save_theirs(modules: list[Any], folder: Path, **options: Any) -> Any:
    """Writes and returns a model of these modules."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(modules=modules, device="cpu", **options)
    model.save(str(folder), create_model_card=False)
    return model


def embed(source: Path, **options: Any) -> np.ndarray:
    with pytest.warns(UserWarning, match=CUT):
        return albert_jax.load(source).embed(TEXTS, **options)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(expected[1:] - expected[0]).max() > 1e-2  # texts differ
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_they_read_ours(pooling, shape, contents, tmp_path, caplog, capfd):
    model, rules = SHAPES[shape]
    config = tiny_model(vocab_size=VOCAB_SIZE, num_hidden_layers=2, **model)
    task = TaskConfig("embedding/pairs", max_length=LENGTH, embedding=EmbeddingConfig(pooling))
    vocabulary = Vocabulary("sentencepiece", contents, rules)
    weights = make_weights("embedding", None, config, task=task, vocabulary=vocabulary)
    write_hf(weights, tmp_path / "ours")
    with caplog.at_level(logging.WARNING):
        theirs = load_theirs(tmp_path / "ours")
        expected = theirs.encode(TEXTS, show_progress_bar=False)
    assert caplog.messages == []
    assert "MISSING" not in "".join(capfd.readouterr())  # weights that it would then draw
    assert (theirs.max_seq_length, theirs.similarity_fn_name) == (LENGTH, "cosine")
    assert theirs.default_prompt_name is None
    assert not any(theirs.prompts.values())
    ids = theirs.tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    assert ids == load_tokenizer(tmp_path / "ours").encode_batch(TEXTS)
    assert_same(embed(tmp_path / "ours"), expected)

    theirs.save(str(tmp_path / "theirs"), create_model_card=False)
    again = read_hf(tmp_path / "theirs")
    assert (again.kind, again.task) == ("embedding", task)
    assert_same(embed(tmp_path / "theirs"), expected)


@pytest.mark.parametrize("is_unit", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_we_read_theirs(pooling, is_unit, contents, tmp_path):
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    encoder = make_encoder(contents, tmp_path / "encoder")
    pool = Pooling(encoder.get_embedding_dimension(), pooling)
    theirs = save_theirs([encoder, pool, *[Normalize()] * is_unit], tmp_path / "theirs")
    expected = theirs.encode(TEXTS)
    assert_same(embed(tmp_path / "theirs", normalize=is_unit), expected)

    convert(str(tmp_path / "theirs"), tmp_path / "run", "orbax", None, None)
    assert_same(embed(tmp_path / "run", normalize=is_unit), expected)
    convert(str(tmp_path / "run"), tmp_path / "ours", "hf", None, None)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)  # as ours always say
    assert_same(load_theirs(tmp_path / "ours").encode(TEXTS), expected)


def test_what_we_cannot_compute_is_refused(contents, tmp_path):
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import (
        LSTM,
        Dropout,
        Pooling,
        WeightedLayerPooling,
    )

    encoder = make_encoder(contents, tmp_path / "encoder")
    size = encoder.get_embedding_dimension()
    encoder.model.config.output_hidden_states = True  # for WeightedLayerPooling
    mean, prompts = Pooling(size), {"prompts": {"q": "tan "}, "default_prompt_name": "q"}
    cases = {
        "Dense of the modules": ([encoder, mean, Dense(size, 8)], {}),
        "LSTM of the modules": ([encoder, LSTM(size, 8), Pooling(16)], {}),
        "Dropout of the modules": ([encoder, mean, Dropout()], {}),
        "WeightedLayerPooling of": ([encoder, WeightedLayerPooling(size, 4), mean], {}),
        "the pooling is max;": ([encoder, Pooling(size, "max")], {}),
        "the pooling is weightedmean;": ([encoder, Pooling(size, "weightedmean")], {}),
        "the pooling is cls and mean;": ([encoder, Pooling(size, ("cls", "mean"))], {}),
        "input_name='token_embeddings'": ([encoder, mean, Normalize("token_embeddings")], {}),
        "default_prompt_name='q' puts 'tan '": ([encoder, mean], prompts),
        "truncate_dim=8": ([encoder, mean], {"truncate_dim": 8}),
    }
    for i, (message, (modules, options)) in enumerate(cases.items()):
        save_theirs(modules, tmp_path / str(i), **options)
        with pytest.raises(ValueError, match=message):
            albert_jax.load(tmp_path / str(i))
