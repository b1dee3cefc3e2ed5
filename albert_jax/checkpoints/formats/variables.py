"""One table of variable names: in this package, google-research/albert and transformers.

A dialect is a naming scheme for the same variables: `tf`, the scopes of google-research/albert;
`albert` and `bert`, the modules of transformers.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx, traverse_util

from albert_jax.config import ModelConfig
from albert_jax.model import Albert, layers_of_groups
from albert_jax.model.heads import HEADS, PRETRAINING, heads_of

DIALECTS = ("tf", "albert", "bert")

# Leaves of a module: (this package, google-research/albert, transformers).
_DENSE = (("kernel", "kernel", "weight"), ("bias", "bias", "bias"))
_NORM = (("scale", "gamma", "weight"), ("bias", "beta", "bias"))
_TABLE = (("embedding", "", "weight"),)  # in google-research/albert, the scope names the variable
_OUTPUT = (("kernel", "output_weights", "weight"), ("bias", "output_bias", "bias"))

# Modules: (this package, leaves, google-research/albert's scope, transformers' ALBERT,
# transformers' BERT); None if a dialect has no such module. {g} and {i} are the group and the
# inner group; BERT has a group for each layer.
# Source: google-research/albert modeling.py and run_pretraining.py (scopes); transformers
# modeling_albert.py and modeling_bert.py (modules).
_LAYER = "encoder/group_{g}/inner_group_{i}"
_TF_LAYER = "bert/encoder/transformer/group_{g}/inner_group_{i}"
_ALBERT_LAYER = "albert.encoder.albert_layer_groups.{g}.albert_layers.{i}"
_BERT_LAYER = "bert.encoder.layer.{g}"
_ATTENTION = tuple(
    (
        f"{_LAYER}/attention/{name}",
        _DENSE,
        f"{_TF_LAYER}/attention_1/self/{name}",
        f"{_ALBERT_LAYER}.attention.{name}",
        f"{_BERT_LAYER}.attention.self.{name}",
    )
    for name in ("query", "key", "value")
)
# fmt: off
_MODULES = (
    ("embeddings/token_embed", _TABLE, "bert/embeddings/word_embeddings",
     "albert.embeddings.word_embeddings", "bert.embeddings.word_embeddings"),
    ("embeddings/position_embed", _TABLE, "bert/embeddings/position_embeddings",
     "albert.embeddings.position_embeddings", "bert.embeddings.position_embeddings"),
    ("embeddings/type_embed", _TABLE, "bert/embeddings/token_type_embeddings",
     "albert.embeddings.token_type_embeddings", "bert.embeddings.token_type_embeddings"),
    ("embeddings/norm", _NORM, "bert/embeddings/LayerNorm",
     "albert.embeddings.LayerNorm", "bert.embeddings.LayerNorm"),
    ("encoder/embed_proj", _DENSE, "bert/encoder/embedding_hidden_mapping_in",
     "albert.encoder.embedding_hidden_mapping_in", None),
    *_ATTENTION,
    (f"{_LAYER}/attention/output", _DENSE, f"{_TF_LAYER}/attention_1/output/dense",
     f"{_ALBERT_LAYER}.attention.dense", f"{_BERT_LAYER}.attention.output.dense"),
    (f"{_LAYER}/attention/norm", _NORM, f"{_TF_LAYER}/LayerNorm",
     f"{_ALBERT_LAYER}.attention.LayerNorm", f"{_BERT_LAYER}.attention.output.LayerNorm"),
    (f"{_LAYER}/ffn/intermediate", _DENSE, f"{_TF_LAYER}/ffn_1/intermediate/dense",
     f"{_ALBERT_LAYER}.ffn", f"{_BERT_LAYER}.intermediate.dense"),
    (f"{_LAYER}/ffn/output", _DENSE, f"{_TF_LAYER}/ffn_1/intermediate/output/dense",
     f"{_ALBERT_LAYER}.ffn_output", f"{_BERT_LAYER}.output.dense"),
    (f"{_LAYER}/ffn/norm", _NORM, f"{_TF_LAYER}/LayerNorm_1",
     f"{_ALBERT_LAYER}.full_layer_layer_norm", f"{_BERT_LAYER}.output.LayerNorm"),
    ("pooler", _DENSE, "bert/pooler/dense", "albert.pooler", "bert.pooler.dense"),
    ("mlm/dense", _DENSE, "cls/predictions/transform/dense",
     "predictions.dense", "cls.predictions.transform.dense"),
    ("mlm/norm", _NORM, "cls/predictions/transform/LayerNorm",
     "predictions.LayerNorm", "cls.predictions.transform.LayerNorm"),
    ("mlm", (("bias", "output_bias", "bias"),), "cls/predictions",
     "predictions", "cls.predictions"),
    ("sop", _OUTPUT, "cls/seq_relationship", "sop_classifier.classifier",
     "cls.seq_relationship"),
    ("classifier", _DENSE, None, "classifier", "classifier"),
    ("span", _DENSE, None, "qa_outputs", "qa_outputs"),
)
# fmt: on


def _of_decoder(module: tuple, within: str = "") -> tuple:
    """Returns the decoder's counterpart of a module of the encoder; only BERT has one elsewhere.

    `within` is "cross" for the cross-attention that corresponds to an attention.
    """
    path, leaves, *_, bert = module
    path = f"decoder/{path.removeprefix('encoder/')}"
    if within:
        path = path.replace("/attention/", "/cross_attention/")
        bert = bert.replace(".attention.", ".crossattention.")
    return path, leaves, None, None, f"decoder.{bert}"


# Source: transformers modeling_encoder_decoder.py and modeling_bert.py (BertLMHeadModel).
_MODULES += tuple(
    _of_decoder(module)
    for module in _MODULES
    if module[0].startswith(("embeddings/", f"{_LAYER}/")) and module[-1]
) + tuple(
    _of_decoder(module, "cross")
    for module in _MODULES
    if module[0].startswith(f"{_LAYER}/attention/")
)


class Variable(NamedTuple):
    """A dialect's variable and its place in this package's parameters.

    Attributes:
      path: the parameter's path, such as `encoder/group_0/inner_group_0/ffn/output/kernel`.
      layer: index along the parameter's first axis; None for the whole parameter.
      name: the variable's name in the dialect.
      is_transposed: whether the variable is the parameter transposed.
    """

    path: str
    layer: int | None
    name: str
    is_transposed: bool


def variables(config: ModelConfig, heads: Sequence[str], dialect: str) -> list[Variable]:
    """Returns all variables of a model with the given heads.

    Raises:
      ValueError: if the dialect has no name for a part of the model.
    """
    groups = {
        "encoder": external_groups(config),
        "decoder": external_groups(
            dataclasses.replace(config, num_hidden_layers=config.decoder_layers)
        ),
    }
    found = []
    for path, leaves, *names in _MODULES:
        part = path.partition("/")[0]
        if part not in ("embeddings", "encoder", *heads):
            continue
        if path == "encoder/embed_proj" and not config.has_projection:
            continue
        if path.startswith("decoder/") and not _is_own(path, config):
            continue
        name = names[DIALECTS.index(dialect)]
        if name is None:
            part = path.replace("/group_{g}/inner_group_{i}", "")
            raise ValueError(f"{dialect} checkpoints have no variable for {part!r}")
        layered = "/group_{g}/" in path
        for g, layer, theirs in groups[part] if layered else [(0, None, 0)]:
            for i in range(config.inner_group_num if layered else 1):
                ours = path.format(g=g, i=i)
                found += _leaves(ours, layer, name.format(g=theirs, i=i), leaves, dialect)
    return found


def _is_own(path: str, config: ModelConfig) -> bool:
    """Whether a module of the decoder is not the encoder's."""
    if path.startswith("decoder/embeddings/"):
        return not config.decoder.share_embeddings
    return "/cross_attention/" in path or not config.decoder.share_encoder


def _leaves(
    path: str, layer: int | None, name: str, leaves: Sequence[Sequence[str]], dialect: str
) -> Iterator[Variable]:
    for ours, tf, transformers in leaves:
        leaf, separator = (tf, "/") if dialect == "tf" else (transformers, ".")
        # Source: run_pretraining.py, get_sentence_order_output ([2, D]); torch.nn.Linear.
        is_transposed = ours == "kernel" and (dialect != "tf" or tf == "output_weights")
        full_name = f"{name}{separator}{leaf}" if leaf else name
        yield Variable(f"{path}/{ours}", layer, full_name, is_transposed)


def external_groups(config: ModelConfig) -> list[tuple[int, int | None, int]]:
    """Returns (group, layer within it or None, group elsewhere) for each group elsewhere.

    In other code bases all layers of a group share everything, so each unshared layer becomes a
    group of its own.

    Raises:
      ValueError: if only a part of each layer is shared.
    """
    counts = layers_of_groups(config.num_hidden_layers, config.num_hidden_groups)
    if config.share == "all":
        return [(g, None, g) for g in range(len(counts))]
    if config.share != "none":
        raise ValueError(
            f"model.share={config.share!r} exists only in albert_jax: elsewhere the layers of a "
            "group share both attention and feed-forward weights, or a group is a single layer"
        )
    layers = [(g, layer) for g, count in enumerate(counts) for layer in range(count)]
    return [(g, layer, theirs) for theirs, (g, layer) in enumerate(layers)]


def check_grouping(config: ModelConfig, groups_elsewhere: Sequence[int], whose: str) -> None:
    """Checks that another code base assigns every layer to the same group.

    Raises:
      ValueError: if its rounding differs.
    """
    if config.share == "none":
        ours = list(range(config.num_hidden_layers))
    else:
        counts = layers_of_groups(config.num_hidden_layers, config.num_hidden_groups)
        ours = list(itertools.chain.from_iterable([g] * n for g, n in enumerate(counts)))
    if ours != list(groups_elsewhere):
        raise ValueError(
            f"model.num_hidden_layers={config.num_hidden_layers} in {max(ours) + 1} groups: "
            f"{whose} rounds the layers' groups to {list(groups_elsewhere)} instead of {ours}, so "
            "the weights would describe a different model"
        )


_LISTED = 8  # names in an error message


def to_variables(params: Mapping[str, Any], config: ModelConfig, dialect: str) -> dict[str, Any]:
    """Converts parameters to the dialect's variables: name -> float32 NumPy array.

    Raises:
      ValueError: if the dialect cannot represent the model.
    """
    flat = traverse_util.flatten_dict(dict(params), sep="/")
    found = {}
    for variable in variables(config, heads_of(params), dialect):
        leaf = np.asarray(flat[variable.path])
        array = leaf if variable.layer is None else leaf[variable.layer]
        found[variable.name] = np.ascontiguousarray(array.T if variable.is_transposed else array)
    return found


def from_variables(
    found: Mapping[str, np.ndarray], config: ModelConfig, dialect: str, source: str
) -> dict[str, Any]:
    """Converts the dialect's variables to parameters: a nested dict of float32 NumPy arrays.

    Heads without any variable are left out.

    Args:
      found: name -> floating point array.
      config: the model's sizes.
      dialect: the naming scheme.
      source: where the variables come from, for messages.

    Raises:
      ValueError: if variables are missing, unexpected, or of the wrong shape or type.
    """
    heads = [head for head in _heads_of_dialect(dialect) if _has_any(found, config, head, dialect)]
    wanted = variables(config, heads, dialect)
    _check_names({variable.name for variable in wanted}, found.keys(), source)
    shapes = _shapes(config, heads, found, wanted)
    flat: dict[str, Any] = {}
    for variable in wanted:
        array = _checked(found[variable.name], variable, shapes[variable.path], source)
        if variable.layer is None:
            flat[variable.path] = array
        else:
            flat.setdefault(variable.path, []).append(array)
    stacked = {path: np.stack(a) if isinstance(a, list) else a for path, a in flat.items()}
    return traverse_util.unflatten_dict(stacked, sep="/")


def _heads_of_dialect(dialect: str) -> tuple[str, ...]:
    if dialect == "tf":
        return PRETRAINING
    return HEADS if dialect == "bert" else tuple(head for head in HEADS if head != "decoder")


def _own(head: str, config: ModelConfig, dialect: str) -> list[Variable]:
    return [v for v in variables(config, [head], dialect) if v.path.partition("/")[0] == head]


def _has_any(found: Mapping[str, Any], config: ModelConfig, head: str, dialect: str) -> bool:
    return any(variable.name in found for variable in _own(head, config, dialect))


def _check_names(wanted: Collection[str], found: Collection[str], source: str) -> None:
    complaints = []
    for what, names in {
        "missing": [name for name in wanted if name not in found],
        "unexpected": [name for name in found if name not in wanted],
    }.items():
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            complaints.append(f"{what}: {', '.join(sorted(names)[:_LISTED])}{more}")
    if complaints:
        raise ValueError(
            f"{source}: the variables do not match the model that its config describes; "
            + "; ".join(complaints)
        )


def _shapes(
    config: ModelConfig, heads: Collection[str], found: Mapping[str, Any], wanted: list[Variable]
) -> dict[str, tuple[int, ...]]:
    """Returns the parameters' shapes; the classifier has as many classes as its bias."""
    num_labels = next((found[v.name].size for v in wanted if v.path == "classifier/bias"), 2)
    model = nnx.eval_shape(
        lambda: Albert(config, tuple(heads), num_labels=num_labels, rngs=nnx.Rngs(0))
    )
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def _checked(
    array: np.ndarray, variable: Variable, shape: tuple[int, ...], source: str
) -> np.ndarray:
    if variable.layer is not None:
        shape = shape[1:]
    if array.shape != (shape[::-1] if variable.is_transposed else shape):
        raise ValueError(
            f"{source}: {variable.name} has shape {array.shape}, but the config requires "
            f"{shape[::-1] if variable.is_transposed else shape}"
        )
    if not jnp.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"{source}: {variable.name} is of type {array.dtype}, but must be floating point"
        )
    return np.ascontiguousarray(array.T if variable.is_transposed else array, np.float32)
