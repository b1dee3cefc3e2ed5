"""TensorFlow checkpoints of google-research/albert, with LAMB's moments."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.checkpoints.formats.hf_config import checked_model_config, our_settings
from albert_jax.checkpoints.formats.variables import (
    check_grouping,
    external_groups,
    from_variables,
    to_variables,
)
from albert_jax.checkpoints.weights import Moments, Weights
from albert_jax.config import ModelConfig
from albert_jax.data.files import read_object
from albert_jax.data.tokenizers import read_vocabulary

CONFIG = "albert_config.json"
# The names of the published files.
_VOCABULARIES = {"sentencepiece": "30k-clean.model", "wordpiece": "vocab_chinese.txt"}
_STEP = "global_step"
# Suffixes of LAMB's slot variables. Source: google-research/albert lamb_optimizer.py.
_SLOTS = ("/adam_m", "/adam_v")
_HUB_PREFIX = "module/"  # of variables in a TensorFlow Hub module
# Activation names in google-research/albert -> in this package. Source: modeling.py,
# get_activation: its gelu is the tanh approximation.
_ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu", "tanh": "tanh"}
# Settings of structures that google-research/albert never published, with the supported values.
_FIXED = {"net_structure_type": 0, "gap_size": 0, "num_memory_blocks": 0, "down_scale_factor": 1}
_SIZES = (
    "vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_hidden_groups",
    "inner_group_num", "num_attention_heads", "intermediate_size", "hidden_dropout_prob",
    "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
    "initializer_range",
)  # fmt: skip


def is_tf(directory: Path) -> bool:
    """Returns whether a directory is from google-research/albert: has an `albert_config.json`."""
    return (directory / CONFIG).is_file()


def read_tf(directory: Path, with_moments: bool = False) -> Weights:
    """Reads the checkpoint in a directory: the newest, if the file `checkpoint` names one.

    Args:
      directory: holds `albert_config.json`, one checkpoint in either TensorFlow format
        (`NAME.index` and `NAME.data-…`, or one file NAME) and its vocabulary.
      with_moments: whether to read LAMB's moments, if there are any.

    Raises:
      FileNotFoundError: if there is no checkpoint.
      ValueError: if the model is not supported, or a variable is missing, unexpected or damaged.
    """
    config = _read_config(directory / CONFIG)
    prefix = _find_checkpoint(directory)
    found = _read_variables(prefix)
    _check_not_albert_zh(found, prefix)
    step = int(found.pop(_STEP, 0))
    slots = {end: _take(found, end) for end in _SLOTS}
    params = from_variables(found, config, "tf", str(prefix))
    moments = None
    if with_moments and any(slots.values()):
        mu, nu = (from_variables(slots[end], config, "tf", f"{prefix} (*{end})") for end in _SLOTS)
        moments = Moments(mu, nu)
    kind = "pretraining" if "mlm" in params else "encoder"
    file = _vocabulary_file(directory)
    return Weights(
        config=config,
        params=params,
        kind=kind,
        vocabulary=read_vocabulary(file) if file else None,
        moments=moments,
        step=step,
        files=tuple(_files(directory, prefix)),
    )


def write_tf(weights: Weights, directory: Path) -> None:
    """Writes `albert_config.json`, `model.ckpt-STEP` and the vocabulary.

    Raises:
      ValueError: if google-research/albert cannot represent the model.
    """
    config = weights.config
    values = _to_config(config)
    variables = to_variables(weights.params, config, "tf")
    if weights.moments is not None:
        for end, tree in zip(_SLOTS, weights.moments, strict=True):
            slots = to_variables(tree, config, "tf")
            variables |= {f"{name}{end}": array for name, array in slots.items()}
    variables[_STEP] = np.asarray(weights.step, np.int64)
    tf = _tensorflow()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    prefix = f"model.ckpt-{weights.step}"
    names = sorted(variables)
    tf.raw_ops.SaveV2(
        prefix=str(directory / prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[variables[name] for name in names],
    )
    (directory / "checkpoint").write_text(f'model_checkpoint_path: "{prefix}"\n', "utf-8")
    if weights.vocabulary is not None:
        weights.vocabulary.write(directory, _VOCABULARIES[weights.vocabulary.kind])


def _files(directory: Path, prefix: Path) -> list[Path]:
    """Returns the files that `read_tf` reads."""
    parts = [p for p in prefix.parent.iterdir() if p.name == prefix.name or p.stem == prefix.name]
    vocabularies = [*directory.glob("*.model"), *directory.glob("vocab*.txt")]
    return [directory / CONFIG, *vocabularies, *filter(Path.is_file, parts)]


def _read_config(path: Path) -> ModelConfig:
    values = read_object(path)
    for name, only in _FIXED.items():
        if values.get(name, only) != only:
            raise ValueError(f"{path}: {name}={values[name]!r} is not supported, only {only}")
    act = str(values.get("hidden_act", "gelu"))
    if act not in _ACTIVATIONS and act not in _ACTIVATIONS.values():
        raise ValueError(f"{path}: hidden_act={act!r} must be one of {', '.join(_ACTIVATIONS)}")
    model = {name: values[name] for name in _SIZES if name in values}
    model |= {"hidden_act": _ACTIVATIONS.get(act, act)} | our_settings(values, str(path))
    try:
        config = checked_model_config(model)
        _check_tf_grouping(config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return config


def _to_config(config: ModelConfig) -> dict[str, Any]:
    acts = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    if config.hidden_act not in acts:
        raise ValueError(
            f"model.hidden_act={config.hidden_act!r}: google-research/albert has only "
            f"{', '.join(acts)}"
        )
    if config.project_embeddings and config.embedding_size == config.hidden_size:
        raise ValueError(
            "model.project_embeddings=True: google-research/albert projects only if E ≠ D"
        )
    if config.layer_norm_eps != ModelConfig.layer_norm_eps:
        raise ValueError(
            f"model.layer_norm_eps={config.layer_norm_eps}: google-research/albert always uses "
            f"{ModelConfig.layer_norm_eps}"
        )
    _check_tf_grouping(config)
    values: dict[str, Any] = {name: getattr(config, name) for name in _SIZES}
    values |= {"hidden_act": acts[config.hidden_act]} | _FIXED
    values["num_hidden_groups"] = len(external_groups(config))
    if config.share != "all":  # unknown to google-research; lets this package read its own files
        values["albert_jax"] = {
            "share": config.share,
            "num_hidden_groups": config.num_hidden_groups,
        }
    return values


def _check_tf_grouping(config: ModelConfig) -> None:
    # Source: google-research/albert modeling.py, transformer_model.
    layers, groups = config.num_hidden_layers, len(external_groups(config))
    check_grouping(
        config, [int(i / layers * groups) for i in range(layers)], "google-research/albert"
    )


def _find_checkpoint(directory: Path) -> Path:
    newest = _tensorflow().train.latest_checkpoint(str(directory))
    if newest is not None:
        if Path(newest).parent.resolve() != directory.resolve():
            raise ValueError(
                f"{directory / 'checkpoint'}: {newest!r} is not a file of this directory"
            )
        return Path(newest)
    ends = (".index", ".meta")
    prefixes = {p.with_suffix("") for p in directory.iterdir() if p.suffix in ends}
    if len(prefixes) != 1:
        found = ", ".join(sorted(p.name for p in prefixes)) or "none"
        raise FileNotFoundError(
            f"{str(directory)!r} must hold one checkpoint (NAME.index or NAME.meta), or a file "
            f"`checkpoint` that names the one to read; found: {found}"
        )
    return prefixes.pop()


def _read_variables(prefix: Path) -> dict[str, np.ndarray]:
    tf = _tensorflow()
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        names = reader.get_variable_to_shape_map()
        return {name.removeprefix(_HUB_PREFIX): reader.get_tensor(name) for name in names}
    except (tf.errors.OpError, IndexError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{prefix}: cannot be read as a checkpoint: {reason}") from None


def _check_not_albert_zh(found: Collection[str], prefix: Path) -> None:
    """Refuses the first checkpoints of brightmart/albert_zh, which are another network.

    Source: https://github.com/brightmart/albert_zh, modeling.py.
    """
    if any("word_embeddings_2" in name or "/layer_shared/" in name for name in found):
        raise ValueError(
            f"{prefix}: a checkpoint of brightmart/albert_zh, which adds positions after the "
            "projection to the hidden size, where ALBERT adds them before; use one of its "
            "albert_*_google versions"
        )


def _take(found: dict[str, np.ndarray], end: str) -> dict[str, np.ndarray]:
    """Moves the variables with a name suffix to a separate dict, without the suffix."""
    names = [name for name in found if name.endswith(end)]
    return {name.removesuffix(end): found.pop(name) for name in names}


def _vocabulary_file(directory: Path) -> Path | None:
    files = sorted([*directory.glob("*.model"), *directory.glob("vocab*.txt")])
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{str(directory)!r} holds several vocabularies ({names}); keep only one")
    return files[0] if files else None


def _tensorflow() -> Any:
    # Otherwise TensorFlow logs at every start how it will compute, although it only reads here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        import tensorflow
    except ImportError:
        raise ValueError(
            "checkpoints of google-research/albert need TensorFlow: pip install tensorflow"
        ) from None
    return tensorflow
