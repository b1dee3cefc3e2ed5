"""The BERT-shaped translation model against transformers' EncoderDecoderModel, both ways."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file
from support.hf_models import scaled
from support.pieces import CLS, PAD, SEP
from support.translation import HEADS, logits_of, pair_batch, translation_model

from albert_jax.checkpoints.formats.huggingface import read_hf, write_hf
from albert_jax.checkpoints.weights import Weights
from albert_jax.config import ModelConfig
from albert_jax.config.schema import TaskConfig
from albert_jax.config.translation import TranslationConfig
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.model import Albert
from albert_jax.model.albert import abstract_model
from albert_jax.tasks.registry import make_task
from albert_jax.tasks.translation import Translation

pytestmark = pytest.mark.torch
SIZES = {
    "share": "none",
    "embedding_size": 32,
    "hidden_act": "gelu",
    "max_position_embeddings": 64,
}


def theirs(config: ModelConfig, layers: int = 3) -> Any:
    """transformers' pair of BERTs of these sizes, with weights large enough to differ."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {k: v for k, v in dataclasses.asdict(config).items() if k != "decoder"}
    encoder = transformers.BertConfig(**sizes)
    decoder = transformers.BertConfig(
        **(sizes | {"num_hidden_layers": layers, "is_decoder": True, "add_cross_attention": True})
    )
    pair = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    pair.decoder_start_token_id, pair.pad_token_id, pair.eos_token_id = CLS, PAD, SEP
    return scaled(transformers.EncoderDecoderModel(pair), 1.5)


def backwards(rows: int, seed: int) -> dict[str, Any]:
    """Random words, and the same words backwards."""
    draw = np.random.default_rng(seed)
    batch = pair_batch(rows, sources=8, targets=7, seed=seed)
    for name in batch:
        batch[name][:] = 0
    batch["weights"][:] = 1
    for row, length in enumerate(draw.integers(2, 7, rows)):
        words = draw.integers(5, 17, length)
        batch["input_ids"][row, : length + 2] = [CLS, *words, SEP]
        batch["attention_mask"][row, : length + 2] = 1
        batch["target_ids"][row, : length + 1] = [CLS, *words[::-1]]
        batch["target_labels"][row, : length + 1] = [*words[::-1], SEP]
        batch["target_weights"][row, : length + 1] = 1
    return batch


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Weights, Any]:
    """A model that has half learnt to write words backwards, here and in transformers."""
    config = translation_model(**SIZES, initializer_range=0.1, share_encoder=False)
    settings = TaskConfig(
        name="translation/src-tgt", translation=TranslationConfig(label_smoothing=0.0)
    )
    task = make_task(settings, ())
    graphdef, params = nnx.split(Albert(config, HEADS, rngs=nnx.Rngs(0)), nnx.Param)
    tx = optax.adam(2e-3)

    @jax.jit
    def update(params: Any, state: Any, batch: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            found = task.metrics(nnx.merge(graphdef, params), batch, None)["task_loss"]
            return found.total / found.count

        updates, state = tx.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for step in range(80):
        params, state = update(params, state, backwards(32, step))
    weights = Weights(config, numpy_of(nnx.to_pure_dict(params)), "translation")
    folder = tmp_path_factory.mktemp("learnt")
    write_hf(weights, folder)
    return weights, transformers.EncoderDecoderModel.from_pretrained(folder).eval()


def ours(weights: Weights) -> Any:
    graphdef, _ = nnx.split(abstract_model(weights.config, weights.params), nnx.Param)
    return nnx.merge(graphdef, weights.params)


def their_logits(model: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        return model(
            input_ids=torch.tensor(batch["input_ids"]).long(),
            attention_mask=torch.tensor(batch["attention_mask"]).long(),
            decoder_input_ids=torch.tensor(batch["target_ids"]).long(),
        ).logits.numpy()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """transformers' model, and the directory that it saved."""
    folder = tmp_path_factory.mktemp("pair")
    model = theirs(translation_model(**SIZES))
    model.save_pretrained(folder)
    return model, folder


def test_logits_are_those_of_transformers(pair):
    model, folder = pair
    weights = read_hf(folder)
    assert weights.kind == "translation"
    assert weights.config.decoder_layers == 3
    batch = pair_batch(rows=8, sources=12, targets=10)
    expected = their_logits(model, batch)
    assert np.ptp(expected) > 5
    real = batch["target_weights"] > 0
    found = np.asarray(logits_of(ours(weights), batch))
    np.testing.assert_allclose(found[real], expected[real], atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("share_embeddings", [True, False])
@pytest.mark.parametrize("share_encoder", [True, False])
def test_what_is_written_is_read_there_and_read_back(tmp_path, share_encoder, share_embeddings):
    config = translation_model(share_encoder, share_embeddings, **SIZES)
    params = nnx.to_pure_dict(nnx.state(Albert(config, HEADS, rngs=nnx.Rngs(1)), nnx.Param))
    weights = Weights(config, numpy_of(params), "translation")
    write_hf(weights, tmp_path)
    loaded: Any = transformers.EncoderDecoderModel.from_pretrained(
        tmp_path, output_loading_info=True
    )
    model, said = loaded
    assert not any(said.values())
    batch = pair_batch()
    real = batch["target_weights"] > 0
    expected = their_logits(model.eval(), batch)
    found = np.asarray(logits_of(ours(weights), batch))
    np.testing.assert_allclose(found[real], expected[real], atol=1e-5 * np.abs(expected).max())
    back = read_hf(tmp_path)
    assert back.config == config
    pooler = back.params.pop("pooler")
    assert not np.any(pooler["kernel"])
    assert_same(back.params, weights.params)


def numpy_of(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: numpy_of(leaf) for name, leaf in tree.items()}
    return np.asarray(tree)


def assert_same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, leaf in expected.items():
        if isinstance(leaf, dict):
            assert_same(found[name], leaf)
        else:
            np.testing.assert_array_equal(found[name], leaf)


def test_their_directory_is_written_again_to_the_bit(pair, tmp_path):
    write_hf(read_hf(pair[1]), tmp_path)
    before, after = (load_file(f / "model.safetensors") for f in (pair[1], tmp_path))
    assert before.keys() <= after.keys() | {"decoder.cls.predictions.decoder.weight",
                                            "decoder.cls.predictions.decoder.bias"}  # fmt: skip
    for name, array in after.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize("power", [1.0, 0.6])
@pytest.mark.parametrize("beam", [1, 5])
def test_200_sentences_are_translated_token_for_token(learnt, beam, power):
    weights, model = learnt
    config = TaskConfig(
        name="translation/src-tgt",
        max_length=12,
        translation=TranslationConfig(length_penalty=power),
    )
    task = make_task(config, ())
    assert isinstance(task, Translation)
    batch = backwards(200, seed=1000)
    sources = {k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids")}
    found = np.asarray(task.search(ours(weights), sources, beam).ids[:, 0])
    with torch.no_grad():
        expected = model.generate(
            torch.tensor(batch["input_ids"]).long(),
            attention_mask=torch.tensor(batch["attention_mask"]).long(),
            num_beams=beam,
            length_penalty=power,
            max_length=13,
            early_stopping=False,
            do_sample=False,
        ).numpy()[:, 1:]
    assert len({tuple(row) for row in found}) > 100
    right = 0
    for got, want, labels in zip(found, expected, batch["target_labels"], strict=True):
        length = list(want).index(SEP) + 1 if SEP in want else len(want)
        assert got[:length].tolist() == want[:length].tolist()
        right += got[:length].tolist() == labels[:length].tolist()
    assert 20 < right < 200  # it has learnt something, and not everything


def test_albert_is_refused_with_the_reason(tmp_path):
    config = translation_model()
    params = nnx.to_pure_dict(nnx.state(Albert(config, HEADS, rngs=nnx.Rngs(1)), nnx.Param))
    with pytest.raises(ValueError, match="no ALBERT decoder"):
        write_hf(Weights(config, numpy_of(params), "translation"), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["decoder"].update(hidden_size=64), "hidden_size is 32 and 64"),
        (lambda v: v["decoder"].update(add_cross_attention=False), "lacks is_decoder"),
        (lambda v: v["encoder"].update(model_type="roberta"), "'roberta' and 'bert'"),
        (lambda v: v.update(albert_jax={"share_encoder": True}), "the config says"),
    ],
)
def test_other_pairs_are_refused(pair, tmp_path, change, message):
    for file in pair[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    values = json.loads((tmp_path / "config.json").read_text())
    change(values)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        read_hf(tmp_path)


def test_halves_may_differ_in_what_changes_nothing(pair, tmp_path):
    for file in pair[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    values = json.loads((tmp_path / "config.json").read_text())
    values["decoder"] |= {"_name_or_path": "x", "torch_dtype": "float32", "max_length": 20}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_hf(tmp_path).config.decoder_layers == 3


def test_the_search_travels(learnt, tmp_path):
    chosen = TranslationConfig(beam=3, validation_beam=1, length_penalty=0.6)
    task = TaskConfig(name="translation/en-de", max_length=40, translation=chosen)
    write_hf(learnt[0]._replace(task=task), tmp_path)
    there = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert (there.num_beams, there.length_penalty, there.max_length) == (3, 0.6, 41)
    back = read_hf(tmp_path).task
    assert back is not None
    assert (back.max_length, back.translation) == (40, chosen)


@pytest.mark.parametrize("name", ["decoder_start_token_id", "eos_token_id"])
def test_other_ends_are_refused(learnt, tmp_path, name, vocabulary):
    write_hf(learnt[0]._replace(vocabulary=load_tokenizer(vocabulary).vocabulary), tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {name: 7}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{name}=7 is not the vocabulary's"):
        read_hf(tmp_path)
