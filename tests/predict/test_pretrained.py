"""Using a model: encoding, pairs, masks, and what is refused."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from support.models import tiny_config, tiny_model
from support.pieces import CLS, MASK, SEP, train_tokenizer

import albert_jax
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.model import PRETRAINING, Albert
from albert_jax.predict.pretrained import PretrainedModel

TEXTS = ["a short text", "a rather longer text, with more of the words", "the third text"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PretrainedModel:
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer([*TEXTS, *(f"words and more words {i}" for i in range(300))], file, 60)
    config = tiny_model(vocab_size=60)
    state = nnx.state(Albert(config, PRETRAINING, rngs=nnx.Rngs(0)), nnx.Param)
    params = jax.tree.map(lambda p: p * 5 if p.ndim > 1 else p, nnx.to_pure_dict(state))
    return PretrainedModel(config, params, load_tokenizer(file))


def test_a_text_is_encoded_alike_alone_and_in_a_batch(model):
    together = model(TEXTS)
    length = together.input_ids.shape[1]
    assert together.last_hidden_state.shape == (3, length, 32)
    assert together.hidden_states.shape == (5, 3, length, 32)
    assert together.pooled_output.shape == (3, 32)
    for i, text in enumerate(TEXTS):
        alone = model([text])
        n = alone.input_ids.shape[1]
        assert together.attention_mask[i].sum() == n
        np.testing.assert_array_equal(together.input_ids[i, :n], alone.input_ids[0])
        np.testing.assert_allclose(
            together.last_hidden_state[i, :n], alone.last_hidden_state[0], atol=2e-6
        )
        np.testing.assert_allclose(together.pooled_output[i], alone.pooled_output[0], atol=2e-6)


def test_pairs_have_their_own_token_type(model):
    first, second = model.tokenizer.encode(TEXTS[0]), model.tokenizer.encode(TEXTS[2])
    encoded = model([TEXTS[0]], pairs=[TEXTS[2]])
    assert encoded.input_ids[0].tolist() == [CLS, *first, SEP, *second, SEP]
    swapped = model([TEXTS[2]], pairs=[TEXTS[0]])
    assert np.abs(encoded.pooled_output - swapped.pooled_output).max() > 1e-4


def test_masks_are_filled_in_order_with_probabilities(model):
    text = "a [MASK] text with [MASK] words"
    assert (model([text]).input_ids[0] == MASK).sum() == 2
    first, second = model.fill_mask(text, top_k=60)
    for filled in (first, second):
        probabilities = [candidate.probability for candidate in filled]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert model.tokenizer.pieces([filled[0].id]) == [filled[0].piece]
    assert first != second


def test_rows_beyond_the_vocabulary_are_no_candidates(model):
    config = tiny_model(vocab_size=64)
    state = nnx.state(Albert(config, PRETRAINING, rngs=nnx.Rngs(0)), nnx.Param)
    padded = PretrainedModel(config, nnx.to_pure_dict(state), model.tokenizer)
    (filled,) = padded.fill_mask("a [MASK] text", top_k=128)
    assert sorted(candidate.id for candidate in filled) == list(range(60))


def test_the_order_of_two_texts_has_a_probability(model):
    texts, others = ["words and more", "other words"], ["more words", "a text"]
    probabilities = model.in_order(texts, others)
    assert probabilities.shape == (2,)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    for text, other, probability in zip(texts, others, probabilities, strict=True):
        assert model.in_order([text], [other])[0] == pytest.approx(probability, abs=1e-6)
    assert abs(model.in_order(others, texts) - probabilities).max() > 1e-6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m("text"), "put one text in a list"),
        (lambda m: m([]), "no texts"),
        (lambda m: m(["a"], pairs=["b", "c"]), "1 texts but 2 pairs"),
        (lambda m: m(["words " * 80]), "the model only 64 positions"),
        (lambda m: m.fill_mask("no mask"), r"no \[MASK\] in 'no mask'"),
    ],
)
def test_wrong_calls_are_refused(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="not a run directory"):
        albert_jax.load(tmp_path)
    record = {"config": tiny_config().to_dict(), "kind": "pretraining", "labels": []}
    record["data_fingerprint"] = None
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        albert_jax.load(tmp_path)
