"""Converts the `config.json` of Hugging Face transformers to this package's settings and back."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from albert_jax.checkpoints.formats.variables import check_grouping, external_groups
from albert_jax.checkpoints.weights import Weights
from albert_jax.config import ModelConfig, config_from_dict
from albert_jax.data.tokenizers import tokenizer_of
from albert_jax.model.layers import activation

# kind -> the suffix of the name of transformers' class.
CLASSES = {
    "encoder": "Model",
    "pretraining": "ForPreTraining",
    "masked_lm": "ForMaskedLM",
    "classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "question_answering": "ForQuestionAnswering",
    "multiple_choice": "ForMultipleChoice",
}  # a translation model is a pair of two, see `hf_encoder_decoder`
KNOWN = {
    "albert": tuple(CLASSES.values()),
    "bert": tuple(CLASSES.values()),
}
# Other names of the same function. Source: transformers activations.py, ACT2FN.
_ACTIVATIONS = {
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python": "gelu",
    "swish": "silu",
}
_SHARED = tuple(
    field.name
    for field in dataclasses.fields(ModelConfig)
    if field.name not in ("share", "project_embeddings", "decoder")
)
# Settings that must be present; for the rest, this package has the same defaults as transformers.
_NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
           "intermediate_size")  # fmt: skip
# Settings that would change the computation, with the only supported values.
_FIXED = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}


def dialect_of(config: ModelConfig) -> str:
    """Returns transformers' name for a model: BERT is what shares and factorizes nothing."""
    is_bert = config.share == "none" and config.inner_group_num == 1 and not config.has_projection
    return "bert" if is_bert else "albert"


def family_of(values: Mapping[str, Any], where: str) -> str:
    """Returns the `model_type` of a `config.json`.

    Raises:
      ValueError: if it is not supported.
    """
    family = values.get("model_type")
    if not isinstance(family, str) or family not in KNOWN:
        raise ValueError(
            f"{where}: model_type is {family!r}; supported are {', '.join(map(repr, KNOWN))}"
        )
    return family


def kind_of(values: Mapping[str, Any], where: str) -> str | None:
    """Returns the kind of model that a `config.json` names; None where it names none.

    Raises:
      ValueError: if the architecture is not supported.
    """
    family = family_of(values, where)
    names = values.get("architectures")
    if not names:  # as in published Chinese configs
        return None
    prefix = family.capitalize()
    ends = [str(n).removeprefix(prefix) for n in names] if isinstance(names, list) else []
    if len(ends) != 1 or ends[0] not in KNOWN[family]:
        known = ", ".join(f"{prefix}{end}" for end in KNOWN[family])
        raise ValueError(f"{where}: architectures are {names}; supported are {known}")
    return next(kind for kind, end in CLASSES.items() if end == ends[0])


def kind_of_heads(heads: Collection[str]) -> str:
    """Returns the kind of model that has these heads."""
    if "mlm" in heads:
        return "pretraining" if "sop" in heads else "masked_lm"
    if "span" in heads:
        return "question_answering"
    if "classifier" in heads:
        return "classification" if "pooler" in heads else "token_classification"
    return "encoder"


def to_model_config(values: Mapping[str, Any], where: str) -> ModelConfig:
    """Returns this package's settings for the model that a `config.json` describes.

    Raises:
      ValueError: if settings are missing, or describe a model that is not supported.
    """
    missing = [name for name in _NEEDED if name not in values]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")
    for name, allowed in _FIXED.items():
        if values.get(name) is not None and values[name] not in allowed:
            raise ValueError(f"{where}: {name}={values[name]!r} is not supported, only {allowed}")

    model = {name: values[name] for name in _SHARED if name in values}
    act = values.get("hidden_act", ModelConfig.hidden_act)
    model["hidden_act"] = _ACTIVATIONS.get(str(act), act)
    if values["model_type"] == "bert":
        model |= {"embedding_size": values["hidden_size"], "share": "none"}
    else:
        model |= our_settings(values, where)
    try:
        config = checked_model_config(model)
        if values["model_type"] == "albert":
            _check_groups(config, values.get("num_hidden_groups", 1))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return config


def to_hf_config(weights: Weights) -> dict[str, Any]:
    """Returns the `config.json` with which transformers reads a model of this package.

    Raises:
      ValueError: if transformers cannot represent it.
    """
    config, dialect = weights.config, dialect_of(weights.config)
    groups = len(external_groups(config))
    _check_groups(config, groups)
    values: dict[str, Any] = {name: getattr(config, name) for name in _SHARED}
    values |= {
        "architectures": [f"{dialect.capitalize()}{CLASSES.get(weights.kind, 'Model')}"],
        "model_type": dialect,
        "num_hidden_groups": groups,
        "dtype": "float32",
        "tie_word_embeddings": True,
        **_special_ids(weights),
    }
    if dialect == "bert":
        for name in ("embedding_size", "num_hidden_groups", "inner_group_num"):
            del values[name]
    elif config.share != "all":
        # Unknown to transformers; lets this package read its own files back.
        values["albert_jax"] = {
            "share": config.share,
            "num_hidden_groups": config.num_hidden_groups,
        }
    if "classifier" in weights.params:
        labels = weights.labels or _unnamed(weights.params["classifier"]["bias"].shape[0])
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
    return values


def _special_ids(weights: Weights) -> dict[str, int]:
    """Returns the special ids; those of English ALBERT if there is no vocabulary."""
    if weights.vocabulary is None:
        pad, _, cls, sep, _ = range(5)
    else:
        pad, _, cls, sep, _ = tokenizer_of(weights.vocabulary, "the vocabulary").special
    return {"pad_token_id": pad, "bos_token_id": cls, "eos_token_id": sep}


def our_settings(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the settings that this package added to another code base's config.

    These are settings that the other code base has no name for.

    Raises:
      ValueError: if they are not an object.
    """
    ours = values.get("albert_jax", {})
    if not isinstance(ours, dict):
        raise ValueError(f"{where}: albert_jax must be an object of settings, not {ours!r}")
    return ours


def labels_of(values: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Returns the class names in the order of their ids; empty if the classes have no names.

    Raises:
      ValueError: if their ids are not 0, 1, 2, …
    """
    names = values.get("id2label") or {}
    ids = [str(i) for i in range(len(names))] if isinstance(names, dict) else None
    if ids is None or not set(ids) == set(names):
        raise ValueError(f'{where}: id2label must name the classes "0", "1", …, not {names!r}')
    labels = tuple(str(names[i]) for i in ids)
    return () if labels == _unnamed(len(labels)) else labels


def _unnamed(count: int) -> tuple[str, ...]:
    """Returns the names that transformers gives to unnamed classes."""
    return tuple(f"LABEL_{i}" for i in range(count))


def checked_model_config(model: Mapping[str, Any]) -> ModelConfig:
    """Returns a ModelConfig, checked by the rules of config files and with their errors."""
    config = config_from_dict({"model": model, "data": {"seq_len": 1}}).model
    activation(config.hidden_act)  # refuses one that we do not have
    return config


def _check_groups(config: ModelConfig, groups: int) -> None:
    """Checks that transformers' `groups` assign each layer as this package does."""
    if groups != len(external_groups(config)):
        raise ValueError(
            f"num_hidden_groups={groups} does not agree with share={config.share!r} in albert_jax"
        )
    # Source: transformers modeling_albert.py, AlbertTransformer.forward.
    layers = config.num_hidden_layers
    theirs = [int(layer / (layers / groups)) for layer in range(layers)]
    check_grouping(config, theirs, "transformers")
