"""Checkpoints of the original: names, both file formats, LAMB's moments, what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from flax import traverse_util
from support.models import tiny_model
from support.params import equal_trees, random_params
from support.pieces import english

from albert_jax.checkpoints.formats.tensorflow import read_tf, write_tf
from albert_jax.checkpoints.weights import Moments, Weights
from albert_jax.config import ModelConfig
from albert_jax.data.tokenizers import Vocabulary

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

# The variables of a published checkpoint of one group, without LAMB's slots. Source: the scopes
# of google-research/albert modeling.py and run_pretraining.py, as albert_base lists them.
LAYER = "bert/encoder/transformer/group_0/inner_group_0"
OURS = "encoder/group_0/inner_group_0"
DENSE = {
    "bert/encoder/embedding_hidden_mapping_in": "encoder/embed_proj",
    f"{LAYER}/attention_1/self/query": f"{OURS}/attention/query",
    f"{LAYER}/attention_1/self/key": f"{OURS}/attention/key",
    f"{LAYER}/attention_1/self/value": f"{OURS}/attention/value",
    f"{LAYER}/attention_1/output/dense": f"{OURS}/attention/output",
    f"{LAYER}/ffn_1/intermediate/dense": f"{OURS}/ffn/intermediate",
    f"{LAYER}/ffn_1/intermediate/output/dense": f"{OURS}/ffn/output",
    "bert/pooler/dense": "pooler",
    "cls/predictions/transform/dense": "mlm/dense",
}
NORMS = {  # the first of a layer's two norms stands after its attention
    "bert/embeddings/LayerNorm": "embeddings/norm",
    f"{LAYER}/LayerNorm": f"{OURS}/attention/norm",
    f"{LAYER}/LayerNorm_1": f"{OURS}/ffn/norm",
    "cls/predictions/transform/LayerNorm": "mlm/norm",
}
PUBLISHED = {
    **{
        f"{scope}/{leaf}": f"{path}/{leaf}"
        for scope, path in DENSE.items()
        for leaf in ("kernel", "bias")
    },
    **{f"{scope}/gamma": f"{path}/scale" for scope, path in NORMS.items()},
    **{f"{scope}/beta": f"{path}/bias" for scope, path in NORMS.items()},
    "bert/embeddings/word_embeddings": "embeddings/token_embed/embedding",
    "bert/embeddings/position_embeddings": "embeddings/position_embed/embedding",
    "bert/embeddings/token_type_embeddings": "embeddings/type_embed/embedding",
    "cls/predictions/output_bias": "mlm/bias",
    "cls/seq_relationship/output_weights": "sop/kernel",
    "cls/seq_relationship/output_bias": "sop/bias",
}


def make_weights(config: ModelConfig, step: int = 7, **changes: Any) -> Weights:
    params, mu, nu = (random_params(config, seed=seed) for seed in range(3))
    weights = Weights(
        config, params, "pretraining", english(b"a vocabulary"), Moments(mu, nu), step
    )
    return weights._replace(**changes)


def variables(directory: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(directory))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def save(prefix: Path, found: dict[str, Any], version: int = 2) -> None:
    names = sorted(found)
    tensors = [found[name] for name in names]
    if version == 1:
        tf.raw_ops.Save(filename=str(prefix), tensor_names=names, data=tensors)
        Path(f"{prefix}.meta").touch()  # TensorFlow 1 always wrote the graph beside
    else:
        slices = [""] * len(names)
        tf.raw_ops.SaveV2(
            prefix=str(prefix), tensor_names=names, shape_and_slices=slices, tensors=tensors
        )


def test_names_are_those_of_a_published_checkpoint(tmp_path):
    weights = make_weights(tiny_model())
    write_tf(weights, tmp_path)
    found = variables(tmp_path)
    assert weights.moments is not None
    trees = {"": weights.params, "/adam_m": weights.moments.mu, "/adam_v": weights.moments.nu}
    assert (found["global_step"].dtype, found.pop("global_step")) == (np.int64, 7)
    assert found.keys() == {name + slot for name in PUBLISHED for slot in trees}
    for slot, tree in trees.items():
        flat: dict[str, Any] = traverse_util.flatten_dict(tree, sep="/")
        for name, path in PUBLISHED.items():
            # Dense kernels are as ours, [in, out]; the sentence order head's are [2, D].
            expected = flat[path].T if path == "sop/kernel" else flat[path]
            np.testing.assert_array_equal(found[name + slot], expected, err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_hidden_groups": 2, "inner_group_num": 2},
        {"share": "none"},
        {"share": "none", "num_hidden_groups": 3, "num_hidden_layers": 5},
        {"embedding_size": 32},
        {"hidden_act": "relu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    ],
    ids=str,
)
def test_round_trip_is_exact(changes, tmp_path):
    weights = make_weights(tiny_model(**changes))
    write_tf(weights, tmp_path)
    again = read_tf(tmp_path, with_moments=True)
    assert equal_trees(again.params, weights.params)
    assert equal_trees(again.moments, weights.moments)
    assert {file.parent for file in again.files} == {tmp_path}
    plain = again._replace(params={}, moments=None, files=())
    assert plain == weights._replace(params={}, moments=None)
    assert read_tf(tmp_path).moments is None


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("prefix", ["", "module/"], ids=["checkpoint", "hub module"])
def test_both_file_formats_without_slots(version, prefix, tmp_path):
    weights = make_weights(tiny_model(), moments=None, step=0)
    write_tf(weights, tmp_path / "new")
    found = variables(tmp_path / "new")
    del found["global_step"]
    (tmp_path / "old").mkdir()
    save(tmp_path / "old" / "model.ckpt-best", {prefix + n: a for n, a in found.items()}, version)
    config = json.loads((tmp_path / "new" / "albert_config.json").read_text())
    # As published: no epsilon, integers for rates, gelu for its tanh approximation.
    assert config["hidden_act"] == "gelu"
    config |= {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}
    (tmp_path / "old" / "albert_config.json").write_text(json.dumps(config))
    again = read_tf(tmp_path / "old", with_moments=True)
    assert equal_trees(again.params, weights.params)
    assert (again.config, again.moments, again.step) == (weights.config, None, 0)


def test_the_newest_checkpoint_is_the_one_that_the_file_names(tmp_path):
    old, new = make_weights(tiny_model(), step=3), make_weights(tiny_model(), step=5)
    write_tf(new, tmp_path)
    write_tf(old, tmp_path)
    assert read_tf(tmp_path).step == 3
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.ckpt-3, model\.ckpt-5"):
        read_tf(tmp_path)
    for file in tmp_path.glob("model.ckpt-3.*"):
        file.unlink()
    assert read_tf(tmp_path).step == 5


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "albert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_variables(directory: Path, change: Any) -> None:
    found = variables(directory)
    change(found)
    save(directory / "model.ckpt-7", found)


def truncate(directory: Path) -> None:
    (file,) = directory.glob("*.data-*")
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: change_config(d, net_structure_type=1), "net_structure_type=1"),
        (lambda d: change_config(d, hidden_act="swish"), "hidden_act='swish'"),
        (lambda d: change_config(d, num_hidden_layers=23, num_hidden_groups=23), "rounds"),
        (lambda d: change_config(d, num_hidden_groups=2), "missing: bert/.*group_1"),
        (lambda d: change_config(d, vocab_size=95), r"word_embeddings has shape \(96, 16\)"),
        (lambda d: (d / "albert_config.json").write_text("no"), "not JSON"),
        (lambda d: change_variables(d, lambda v: v.pop(f"{LAYER}/LayerNorm_1/beta")), "missing"),
        (lambda d: change_variables(d, lambda v: v.update(more=np.ones(3))), "unexpected: more"),
        (
            lambda d: change_variables(d, lambda v: v.pop(f"{LAYER}/LayerNorm/beta/adam_v")),
            r"adam_v\).*missing: bert/.*/LayerNorm/beta",
        ),
        (
            lambda d: change_variables(
                d, lambda v: v.update({"bert/embeddings/word_embeddings_2": np.ones((2, 2))})
            ),
            "brightmart/albert_zh, which adds positions after .* use one of its albert_",
        ),
        (truncate, "cannot be read as a checkpoint"),
        (lambda d: (d / "another.model").touch(), "several vocabularies"),
    ],
)
def test_what_cannot_be_read_is_refused(change, message, tmp_path):
    write_tf(make_weights(tiny_model()), tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        read_tf(tmp_path, with_moments=True)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": "ffn"}, "exists only in albert_jax"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu': google-research/albert has only gelu_new"),
        ({"project_embeddings": True, "embedding_size": 32}, "project_embeddings"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps"),
        ({"num_hidden_layers": 23, "share": "none"}, "google-research/albert rounds"),
    ],
)
def test_what_the_original_cannot_represent_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_tf(make_weights(tiny_model(**changes)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_chinese_bundle_is_read_as_it_was_published(tmp_path):
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4E5B)))
    vocabulary = Vocabulary("wordpiece", "".join(f"{p}\n" for p in pieces).encode())
    weights = make_weights(tiny_model(hidden_act="relu"), vocabulary=vocabulary)
    write_tf(weights, tmp_path)
    assert (tmp_path / "vocab_chinese.txt").read_bytes() == vocabulary.contents
    (tmp_path / "tokenizer_config.json").unlink()  # which the authors did not write
    again = read_tf(tmp_path)
    assert again.vocabulary == vocabulary
    assert again.config.hidden_act == "relu"
