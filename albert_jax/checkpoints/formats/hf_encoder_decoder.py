"""transformers' EncoderDecoderModel of two BERTs, to and from a model that translates.

There the decoder has weights of its own throughout, and its output is tied to its own token
table. What this package's decoder shares with the encoder is written twice, and read as shared if
the config says so.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from albert_jax.checkpoints.formats.variables import from_variables, to_variables
from albert_jax.checkpoints.weights import Weights
from albert_jax.config import ModelConfig, TaskConfig, config_from_dict
from albert_jax.config.translation import DecoderConfig
from albert_jax.data.tokenizers import Vocabulary, tokenizer_of
from albert_jax.model.encoder import BLOCKS

MODEL_TYPE = "encoder-decoder"
UNKNOWN_DIRECTION = "translation/src-tgt"  # of a model that does not say
_KEY = "albert_jax"  # unknown to transformers; says what the decoder shares
# What a decoder's config has beside an encoder's.
_DECODER = {"is_decoder": True, "add_cross_attention": True}
# What the two halves must agree on.
_SAME = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "hidden_act",
         "max_position_embeddings", "type_vocab_size", "layer_norm_eps",
         "position_embedding_type")  # fmt: skip


def halves_of(values: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the configs of the encoder and of the decoder, the latter as if it were one too.

    Raises:
      ValueError: if they are not two BERTs of the same widths.
    """
    halves = values.get("encoder"), values.get("decoder")
    kinds = [half.get("model_type") if isinstance(half, Mapping) else None for half in halves]
    if kinds != ["bert", "bert"]:
        raise ValueError(
            f"{where}: encoder and decoder are {kinds[0]!r} and {kinds[1]!r}; supported are two "
            "of 'bert'"
        )
    encoder, decoder = (dict(half) for half in halves if isinstance(half, Mapping))
    if not (decoder.get("is_decoder") and decoder.get("add_cross_attention")):
        raise ValueError(f"{where}: the decoder lacks is_decoder or add_cross_attention")
    differing = [
        f"{name} is {encoder.get(name)!r} and {decoder.get(name)!r}"
        for name in _SAME
        if name in encoder and name in decoder and encoder[name] != decoder[name]
    ]
    if differing:
        raise ValueError(
            f"{where}: encoder and decoder must have the same widths and vocabulary, but "
            + "; ".join(differing)
        )
    return encoder, {k: v for k, v in decoder.items() if k not in _DECODER}


def decoder_settings(values: Mapping[str, Any]) -> DecoderConfig:
    """Returns the settings of the decoder that a config describes."""
    shared = values.get(_KEY) or {}
    layers = values["decoder"]["num_hidden_layers"]
    return DecoderConfig(
        num_layers=0 if layers == values["encoder"]["num_hidden_layers"] else layers,
        share_encoder=bool(shared.get("share_encoder", False)),
        share_embeddings=bool(shared.get("share_embeddings", False)),
    )


def encoder_decoder_config(bert: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Returns the `config.json` of the pair, given that of its encoder."""
    encoder = {**bert, "architectures": ["BertModel"]}
    decoder = {
        **bert,
        **_DECODER,
        "architectures": ["BertLMHeadModel"],
        "num_hidden_layers": config.decoder_layers,
    }
    special = {name: bert[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return {
        "architectures": ["EncoderDecoderModel"],
        "model_type": MODEL_TYPE,
        "is_encoder_decoder": True,
        "encoder": encoder,
        "decoder": decoder,
        "decoder_start_token_id": special["bos_token_id"],
        "vocab_size": bert["vocab_size"],
        "dtype": "float32",
        **special,
        _KEY: {
            "share_encoder": config.decoder.share_encoder,
            "share_embeddings": config.decoder.share_embeddings,
        },
    }


def generation_config(values: Mapping[str, Any], weights: Weights) -> dict[str, Any]:
    """Returns the `generation_config.json`: how `generate` begins, ends and searches."""
    task = weights.task
    found = {
        name: values[name]
        for name in ("decoder_start_token_id", "pad_token_id", "bos_token_id", "eos_token_id")
    }
    if task is None:
        return found
    search = task.translation
    if search.penalty == "length":
        found["length_penalty"] = search.length_penalty
    return found | {"num_beams": search.beam, "max_length": task.max_length + 1}


def task_of(generation: Mapping[str, Any], positions: int, where: str) -> TaskConfig:
    """Returns the settings of a search that a `generation_config.json` describes.

    Raises:
      ValueError: if a value is not a number in range.
    """
    search = {
        ours: generation[theirs]
        for ours, theirs in (("beam", "num_beams"), ("length_penalty", "length_penalty"))
        if generation.get(theirs) is not None
    }
    try:
        longest = min((generation.get("max_length") or positions + 1) - 1, positions)
        task = {"name": UNKNOWN_DIRECTION, "max_length": longest, "translation": search}
        model = {"max_position_embeddings": positions}
        return config_from_dict({"model": model, "task": task}).task
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None


def check_ends(values: Mapping[str, Any], vocabulary: Vocabulary | None, where: str) -> None:
    """Checks that translations begin with [CLS] and end with [SEP].

    Raises:
      ValueError: if the config has other ids.
    """
    if vocabulary is None:
        return
    special = tokenizer_of(vocabulary, where).special
    for name, ours in (("decoder_start_token_id", special.cls), ("eos_token_id", special.sep)):
        if values.get(name) not in (None, ours):
            raise ValueError(
                f"{where}: {name}={values[name]} is not the vocabulary's {ours}; here "
                "translations begin with [CLS] and end with [SEP]"
            )


def write_variables(weights: Weights) -> dict[str, np.ndarray]:
    """Returns the pair's variables under transformers' names."""
    config, flat = weights.config, traverse_util.flatten_dict(weights.params, sep="/")
    for path, leaf in list(flat.items()):
        name = f"decoder/{path.removeprefix('encoder/')}"
        is_block = path.startswith("encoder/group") and config.decoder.share_encoder
        if is_block or (path.startswith("embeddings/") and config.decoder.share_embeddings):
            flat[name] = leaf
    if "pooler/kernel" not in flat:  # transformers' encoder has one, which the decoder ignores
        size = config.hidden_size
        flat |= {"pooler/kernel": np.zeros((size, size), np.float32),
                 "pooler/bias": np.zeros(size, np.float32)}  # fmt: skip
    params = traverse_util.unflatten_dict(flat, sep="/")
    found = to_variables(params, _untied(config), "bert")
    return {_their_name(name): array for name, array in found.items()}


def read_variables(
    tensors: Mapping[str, np.ndarray], config: ModelConfig, source: str
) -> dict[str, Any]:
    """Returns the parameters in the pair's variables, named as transformers names them.

    Raises:
      ValueError: if they are not those of the config, or differ where it says they are shared.
    """
    named = {_our_name(name): array for name, array in tensors.items()}
    for copy, original in (
        ("cls.predictions.decoder.weight", "decoder.bert.embeddings.word_embeddings.weight"),
        ("cls.predictions.decoder.bias", "cls.predictions.bias"),
    ):
        array = named.pop(copy, None)
        if array is not None and not np.array_equal(named.get(original, array), array):
            raise ValueError(
                f"{source}: the decoder's {copy} differs from its {original}; albert_jax always "
                "ties the two"
            )
    named = {name: a for name, a in named.items() if not name.endswith("position_ids")}
    params = from_variables(named, _untied(config), "bert", source)
    flat: dict[str, Any] = traverse_util.flatten_dict(params, sep="/")
    for path in [path for path in flat if path.startswith("decoder/")]:
        original = path.removeprefix("decoder/")
        if original.startswith("embeddings/"):
            is_shared = config.decoder.share_embeddings
        else:
            is_shared = config.decoder.share_encoder and path.split("/")[3] in BLOCKS
            original = f"encoder/{original}"
        if not is_shared:
            continue
        if not np.array_equal(flat.pop(path), flat[original]):
            raise ValueError(
                f"{source}: {path} differs from {original}, but the config says that the decoder "
                f"shares it; remove {_KEY} from config.json to give the decoder its own"
            )
    return traverse_util.unflatten_dict(flat, sep="/")


def _untied(config: ModelConfig) -> ModelConfig:
    """Returns the settings of the same model whose decoder shares nothing."""
    decoder = DecoderConfig(config.decoder.num_layers, False, False)
    return dataclasses.replace(config, decoder=decoder)


def _our_name(name: str) -> str:
    """Returns the name in `variables`: the encoder's as BERT's, the decoder's with a prefix."""
    if name.startswith("encoder."):
        return f"bert.{name.removeprefix('encoder.')}"
    return name.removeprefix("decoder.") if name.startswith("decoder.cls.") else name


def _their_name(name: str) -> str:
    if name.startswith("bert."):
        return f"encoder.{name.removeprefix('bert.')}"
    return f"decoder.{name}" if name.startswith("cls.") else name
