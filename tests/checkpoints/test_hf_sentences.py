"""Files of sentence-transformers, as its releases write them and as we do; read alike or refused.

The library itself reads and writes them in tests/parity/test_sentences_parity.py.
"""

import dataclasses
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.finetuned import make_weights
from support.models import tiny_model
from support.params import equal_trees
from support.texts import VOCAB_SIZE

import albert_jax
from albert_jax.checkpoints.formats.huggingface import read_hf, write_hf
from albert_jax.checkpoints.weights import Weights
from albert_jax.config import TaskConfig
from albert_jax.config.embedding import EmbeddingConfig
from albert_jax.convert import convert
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.predict.finetuned import FinetunedModel

CONFIG = tiny_model(vocab_size=VOCAB_SIZE, num_hidden_layers=1)
TASK = TaskConfig("embedding/pairs", max_length=32, embedding=EmbeddingConfig(pooling="cls"))
BERT = {"share": "none", "embedding_size": CONFIG.hidden_size}
TEXTS = ["tan siling", "tan", ""]
ENCODER, POOLING = "sentence_bert_config.json", "1_Pooling/config.json"
NORMALIZE, SETTINGS = "2_Normalize/config.json", "config_sentence_transformers.json"
# What SentenceTransformer.save of release 6.2 writes.
MODULES_6 = [
    {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.{kind}"}
    for i, (path, kind) in enumerate(
        {
            "": "base.modules.transformer.Transformer",
            "1_Pooling": "sentence_transformer.modules.pooling.Pooling",
            "2_Normalize": "base.modules.normalize.Normalize",
        }.items()
    )
]
FILES_6: dict[str, Any] = {
    "modules.json": MODULES_6,
    ENCODER: {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}
        },
        "module_output_name": "token_embeddings",
    },
    POOLING: {"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True},
    NORMALIZE: dict.fromkeys(("module_input_name", "module_output_name"), "sentence_embedding"),
    SETTINGS: {
        "__version__": {"pytorch": "2.13.0", "sentence_transformers": "6.2.0"},
        "default_prompt_name": None,
        "model_type": "SentenceTransformer",
        "prompts": {"document": "", "query": ""},
        "similarity_fn_name": "cosine",
    },
}


@pytest.fixture
def weights(vocabulary: Path) -> Weights:
    tokenizer = load_tokenizer(vocabulary)
    return make_weights("embedding", config=CONFIG, task=TASK, vocabulary=tokenizer.vocabulary)


@pytest.fixture
def directory(weights: Weights, tmp_path: Path) -> Path:
    """A directory of ours."""
    write_hf(weights, tmp_path / "hf")
    return tmp_path / "hf"


@pytest.fixture
def directory_6(directory: Path) -> Path:
    """The same model as release 6.2 saves it, cut to 32 tokens."""
    for name, content in FILES_6.items():
        write(directory / name, content)
    change(directory / "tokenizer_config.json", model_max_length=32)
    return directory


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def change(path: Path, **values: Any) -> None:
    write(path, read(path) | values)


def module(kind: str, path: str = "2_Other") -> dict[str, Any]:
    return {"idx": 2, "name": "2", "path": path, "type": kind}


def test_what_is_written(directory):
    modules = read(directory / "modules.json")
    assert [module["path"] for module in modules] == ["", "1_Pooling", "2_Normalize"]
    assert [module["type"] for module in modules] == [
        f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")
    ]
    assert read(directory / POOLING) == {
        "word_embedding_dimension": CONFIG.hidden_size,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    assert read(directory / ENCODER) == {"max_seq_length": 32, "do_lower_case": False}
    assert read(directory / NORMALIZE) == {}
    settings = {n: value for n, value in FILES_6[SETTINGS].items() if n != "__version__"}
    assert read(directory / SETTINGS) == settings
    assert read(directory / "config.json")["architectures"] == ["AlbertModel"]


@pytest.mark.parametrize("model", [{}, BERT], ids=["albert", "bert"])
def test_our_files_are_read_back(model, weights, vocabulary, tmp_path):
    config = tiny_model(vocab_size=VOCAB_SIZE, num_hidden_layers=1, **model)
    weights = make_weights("embedding", config=config, task=TASK, vocabulary=weights.vocabulary)
    write_hf(weights, tmp_path / "hf")
    # Those that transformers would otherwise draw at random, with a warning.
    poolers = {
        n: a for n, a in load_file(tmp_path / "hf/model.safetensors").items() if "pool" in n
    }
    assert len(poolers) == 2
    assert not any(a.any() for a in poolers.values())

    again = read_hf(tmp_path / "hf")
    assert (again.kind, again.task, again.config) == ("embedding", TASK, config)
    assert equal_trees(again.params, weights.params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        convert(str(tmp_path / "hf"), tmp_path / "run", "orbax", None, None)
    expected = FinetunedModel(weights, weights.params, load_tokenizer(vocabulary)).embed(TEXTS)
    for source in ("hf", "run"):
        found = albert_jax.load(tmp_path / source).embed(TEXTS)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_files_of_release_6(pooling, directory_6, weights):
    change(directory_6 / POOLING, pooling_mode=pooling)
    again = read_hf(directory_6)
    task = dataclasses.replace(TASK, embedding=EmbeddingConfig(pooling))
    assert (again.kind, again.task) == ("embedding", task)
    assert equal_trees(again.params, weights.params)
    names = {str(file.relative_to(directory_6)) for file in again.files}
    assert names >= FILES_6.keys()
    change(directory_6 / POOLING, pooling_mode=[pooling])
    assert read_hf(directory_6).task == task


def test_a_pooler_that_was_trained_stays(directory_6, weights):
    trained = make_weights("encoder", config=CONFIG, vocabulary=weights.vocabulary)
    write_hf(trained, directory_6)
    change(directory_6 / "tokenizer_config.json", model_max_length=32)
    assert equal_trees(read_hf(directory_6).params, trained.params)


@pytest.mark.parametrize("name", [ENCODER, "sentence_albert_config.json"])
def test_files_of_old_releases(name, directory):
    (directory / ENCODER).rename(directory / name)
    for file in (NORMALIZE, SETTINGS):
        (directory / file).unlink()
    change(directory / name, max_seq_length=16)
    assert read_hf(directory).task == dataclasses.replace(TASK, max_length=16)
    write(directory / "modules.json", read(directory / "modules.json")[:2])
    assert read_hf(directory).task == dataclasses.replace(TASK, max_length=16)


@pytest.mark.parametrize("limit", [64, 10**30, 1e30, None])
def test_without_a_length_it_is_the_models(limit, directory_6):
    change(directory_6 / "tokenizer_config.json", model_max_length=limit)
    (directory_6 / ENCODER).unlink()
    task = read_hf(directory_6).task
    assert task is not None
    assert task.max_length == CONFIG.max_position_embeddings


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (POOLING, {"pooling_mode_max_tokens": True}, "pooling is max_tokens; supported is"),
        (POOLING, {}, "the pooling is missing; supported is one of mean, cls. Remove modules.jso"),
        (
            POOLING,
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "the pooling is cls and mean",
        ),
        (POOLING, {"pooling_mode": "weightedmean"}, "pooling is weightedmean; supported is one"),
        (POOLING, {"pooling_mode": ["cls", "max"]}, "the pooling is cls and max; supported is"),
        (POOLING, {"pooling_mode": 3}, "the pooling is 3; supported is one"),
        (
            "modules.json",
            [*MODULES_6, module("sentence_transformers.base.modules.dense.Dense")],
            "Dense of the modules Transformer, Pooling, Normalize, Dense cannot be computed; sup",
        ),
        (
            "modules.json",
            [MODULES_6[0], module("sentence_transformers.models.LSTM"), MODULES_6[1]],
            "LSTM of the modules .* Remove modules.json to load the encoder alone",
        ),
        (
            "modules.json",
            [module("custom_st.Transformer", ""), *MODULES_6[1:]],
            "custom_st.Transformer of the modules custom_st.Transformer, Pooling, Normalize ",
        ),
        ("modules.json", MODULES_6[:1], "the modules Transformer cannot be computed"),
        ("modules.json", [*MODULES_6[:2], MODULES_6[0]], "Transformer, Pooling, Transformer"),
        ("modules.json", [{"kind": 1}], "not a list of modules"),
        ("modules.json", ["Transformer"], "not a list of modules"),
        (
            "modules.json",
            [MODULES_6[0] | {"path": "0_Transformer"}, *MODULES_6[1:]],
            "the paths .*0_Transformer.* must be '' for the encoder",
        ),
        ("modules.json", [MODULES_6[0], MODULES_6[1] | {"path": "../a"}], "the paths .*'../a'"),
        (ENCODER, {"max_seq_length": "x"}, "max_seq_length='x' must be"),
        ("tokenizer_config.json", {"model_max_length": 0}, "model_max_length=0 must be a whole"),
        (ENCODER, {"transformer_task": "fill-mask"}, "task='fill-mask' is not supported, only"),
        (ENCODER, {"modality_config": {"text": {}}}, "modality_config=.* is not supported, only"),
        (ENCODER, {"processing_kwargs": {"text": {}}}, "processing_kwargs=.* is not supported"),
        (ENCODER, {"do_lower_case": True}, "do_lower_case=true, but the tokenizer keeps capital"),
        (NORMALIZE, {"module_input_name": "token_embeddings"}, "'token_embeddings' is not supp"),
        (SETTINGS, {"model_type": "SparseEncoder"}, "model_type='SparseEncoder' is not supported"),
        (SETTINGS, {"truncate_dim": 8}, "truncate_dim=8 .* take the first 8 columns"),
        (SETTINGS, {"prompts": "query"}, "prompts='query' must be an object"),
        (
            SETTINGS,
            {"prompts": {"query": "q: "}, "default_prompt_name": "query"},
            "default_prompt_name='query' puts 'q: ' before each text; set it to null",
        ),
    ],
)
def test_directories_that_are_refused(name, content, message, directory_6):
    change(directory_6 / "tokenizer_config.json", do_lower_case=False)
    keep = read(directory_6 / name) if name == "tokenizer_config.json" else {}
    write(directory_6 / name, keep | content if keep else content)
    with pytest.raises(ValueError, match=message):
        read_hf(directory_6)


def test_capital_letters_may_be_made_small_twice(directory_6):
    change(directory_6 / ENCODER, do_lower_case=True)
    change(directory_6 / "tokenizer_config.json", do_lower_case=True)
    assert read_hf(directory_6).task == TASK


def test_prompts_that_are_not_the_default_are_named(directory_6):
    change(directory_6 / SETTINGS, prompts={"query": "q: ", "document": ""})
    with pytest.warns(UserWarning, match="the prompts query are left to you"):
        assert read_hf(directory_6).task == TASK


def test_products_of_vectors_of_any_length_need_those(directory_6):
    change(directory_6 / SETTINGS, similarity_fn_name="dot")
    assert read_hf(directory_6).task == TASK
    write(directory_6 / "modules.json", MODULES_6[:2])
    with pytest.warns(UserWarning, match=r"='dot' needs embed\(texts, normalize=False\)"):
        assert read_hf(directory_6).task == TASK


def test_a_directory_without_its_pooling_is_refused(directory):
    shutil.rmtree(directory / "1_Pooling")
    with pytest.raises(FileNotFoundError, match="1_Pooling"):
        read_hf(directory)
