"""One table of variable names: ours, the original's, and those of transformers.

A dialect is a way to name the same variables: `tf`, the scopes of google-research/albert;
`albert` and `bert`, the modules of transformers.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from albert_jax.config import ModelConfig
from albert_jax.model import layers_of_groups

DIALECTS = ("tf", "albert", "bert")

# Leaves of a module: (ours, the original's, transformers').
_DENSE = (("kernel", "kernel", "weight"), ("bias", "bias", "bias"))
_NORM = (("scale", "gamma", "weight"), ("bias", "beta", "bias"))
_TABLE = (("embedding", "", "weight"),)  # the original's variable has its scope's name
_OUTPUT = (("kernel", "output_weights", "weight"), ("bias", "output_bias", "bias"))

# Modules: (ours, leaves, the original's scope, transformers' ALBERT, transformers' BERT); None
# where a dialect has no such thing. {g} and {i} are the group and the inner group; BERT has
# a group for each layer.
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
    ("classifier", _DENSE, None, "classifier", None),
    ("span", _DENSE, None, "qa_outputs", None),
)
# fmt: on


class Variable(NamedTuple):
    """One variable of theirs, and where it stands in our parameters.

    Attributes:
      path: of our parameter, as `encoder/group_0/inner_group_0/ffn/output/kernel`.
      layer: index along the parameter's first axis, or None: the whole of it.
      name: theirs.
      is_transposed: whether theirs is ours transposed.
    """

    path: str
    layer: int | None
    name: str
    is_transposed: bool


def variables(config: ModelConfig, heads: Sequence[str], dialect: str) -> list[Variable]:
    """All variables of a model with the given heads.

    Raises:
      ValueError: where the dialect has no name for something in the model.
    """
    groups = external_groups(config)
    found = []
    for path, leaves, *names in _MODULES:
        part = path.partition("/")[0]
        if part not in ("embeddings", "encoder", *heads):
            continue
        if path == "encoder/embed_proj" and not config.has_projection:
            continue
        name = names[DIALECTS.index(dialect)]
        if name is None:
            raise ValueError(f"{dialect} checkpoints have no variable for {path!r}")
        layered = path.startswith(_LAYER)
        for g, layer, theirs in groups if layered else [(0, None, 0)]:
            for i in range(config.inner_group_num if layered else 1):
                ours = path.format(g=g, i=i)
                found += _leaves(ours, layer, name.format(g=theirs, i=i), leaves, dialect)
    return found


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
    """Our (group, layer within it or None) and the group that it is elsewhere.

    Elsewhere all layers of a group share everything, so unshared layers are groups of one.

    Raises:
      ValueError: where only a part of each layer is shared.
    """
    counts = layers_of_groups(config.num_hidden_layers, config.num_hidden_groups)
    if config.share == "all":
        return [(g, None, g) for g in range(len(counts))]
    if config.share != "none":
        raise ValueError(
            f"model.share={config.share!r} exists only here: elsewhere the layers of a group "
            "share both attention and feed-forward weights, or a group is a single layer"
        )
    layers = [(g, layer) for g, count in enumerate(counts) for layer in range(count)]
    return [(g, layer, theirs) for theirs, (g, layer) in enumerate(layers)]


def check_grouping(config: ModelConfig, groups_elsewhere: Sequence[int], whose: str) -> None:
    """Checks that another code base puts every layer in the group that we do.

    Raises:
      ValueError: where its rounding differs.
    """
    if config.share == "none":
        ours = list(range(config.num_hidden_layers))
    else:
        counts = layers_of_groups(config.num_hidden_layers, config.num_hidden_groups)
        ours = list(itertools.chain.from_iterable([g] * n for g, n in enumerate(counts)))
    if ours != list(groups_elsewhere):
        raise ValueError(
            f"model.num_hidden_layers={config.num_hidden_layers} in {max(ours) + 1} groups: "
            f"{whose} rounds the layer's group otherwise, {list(groups_elsewhere)} "
            f"where it should be {ours}, so the weights would mean another model"
        )
