"""Every setting: frozen dataclasses, size presets and strict conversion from config files.

The only place where a default stands. A config file is a Python module whose
`get_config()` returns an `ml_collections.ConfigDict`, made by `default_config()`
and changed; `load_config` runs it, applies command line overrides and converts
the result to a `Config`, which refuses unknown keys, wrong types and values that
cannot work.
"""

import dataclasses
import difflib
import math
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_collections


def _choice(default: str, *others: str) -> Any:
    return field(default=default, metadata={"choices": (default, *others)})


@dataclass(frozen=True)
class ModelConfig:
    """The network, in the names of `albert_config.json`. Defaults: ALBERT base v2.

    Source: arXiv:1909.11942, Table 1, and the published `albert_config.json` files.
    """

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    inner_group_num: int = 1
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = _choice("gelu_new", "gelu", "relu", "silu", "tanh")
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    share: str = _choice("all", "attention", "ffn", "none")


@dataclass(frozen=True)
class DataConfig:
    """Prepared rows and how examples are drawn from them.

    Attributes:
      path: a folder written by `python -m albert_jax.prepare`.
      seq_len: slots in a row; must be what the rows were prepared for.
      packing: rows hold several chunks each; must be what the rows were prepared for.
      mask_rate: share of the pieces to predict.
      max_ngram: longest run of whole words masked together; p(n) is proportional to 1/n.
      sentence_objective: sentence order, next sentence, or no sentence loss.
      num_workers: reader processes; 0 reads in threads of this process.
    """

    path: str = ""
    seq_len: int = 512
    packing: bool = True
    mask_rate: float = 0.15
    max_ngram: int = 3
    sentence_objective: str = _choice("sop", "nsp", "none")
    num_workers: int = 0


@dataclass(frozen=True)
class OptimizerConfig:
    """LAMB or AdamW and the learning rate's course, in optimizer steps.

    Attributes:
      schedule: after the warmup, `linear` and `cosine` fall to zero at the last step;
        `wsd` stays at the peak and falls linearly over the last `decay_fraction`.
      clip_norm: largest global gradient norm; 0 does not clip.
      bias_correction: divide Adam's moments by 1 - b^t. The ALBERT reference's LAMB
        does not; AdamW as published does.

    Source: arXiv:1909.11942, section 4.1; google-research/albert lamb_optimizer.py.
    """

    name: str = _choice("lamb", "adamw")
    learning_rate: float = 0.00176
    warmup_steps: int = 3125
    schedule: str = _choice("linear", "cosine", "wsd")
    decay_fraction: float = 0.1
    weight_decay: float = 0.01
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    clip_norm: float = 1.0
    bias_correction: bool = False


@dataclass(frozen=True)
class TrainConfig:
    """The loop. A step is one optimizer update.

    Attributes:
      batch_size: rows a step, over all devices and accumulation steps.
      dtype: dtype of the matrix products; parameters and sums stay float32.
      remat: what the backward pass computes again: nothing, all but matrix products,
        or the whole layer.
      eval_batches: held-out batches an evaluation reads; 0 reads the whole split.
      keep_checkpoints: newest checkpoints kept.
    """

    batch_size: int = 4096
    num_steps: int = 125_000
    grad_accum_steps: int = 1
    dtype: str = _choice("bfloat16", "float32")
    remat: str = _choice("none", "dots", "full")
    seed: int = 0
    log_every: int = 100
    eval_every: int = 2500
    eval_batches: int = 0
    checkpoint_every: int = 2500
    keep_checkpoints: int = 3


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 (on one axis at most) takes what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class TaskConfig:
    """What is learnt."""

    name: str = _choice("pretrain")


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    task: TaskConfig = TaskConfig()
    init_from: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same settings as nested plain dicts."""
        return dataclasses.asdict(self)


# name: (hidden, feed-forward, heads, layers). Source: arXiv:1909.11942, Table 1; the
# published xlarge checkpoint has 16 heads where the table says 32.
_ALBERT_SIZES = {
    "base": (768, 3072, 12, 12),
    "large": (1024, 4096, 16, 24),
    "xlarge": (2048, 8192, 16, 24),
    "xxlarge": (4096, 16384, 64, 12),
}


def albert_preset(size: str, version: str = "v2") -> dict[str, Any]:
    """Model settings of a published ALBERT; v1 has dropout 0.1, but for xxlarge.

    Raises:
      ValueError: for a size or version that was not published.
    """
    if size not in _ALBERT_SIZES or version not in ("v1", "v2"):
        raise ValueError(
            f"no ALBERT {size!r} {version!r}: sizes are {', '.join(_ALBERT_SIZES)}; "
            "versions are v1, v2"
        )
    hidden, feed_forward, heads, layers = _ALBERT_SIZES[size]
    dropout = 0.1 if version == "v1" and size != "xxlarge" else 0.0
    return {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def bert_preset(size: str) -> dict[str, Any]:
    """Model settings of the BERT baseline: nothing shared, no embedding factorization.

    Source: arXiv:1810.04805, section 3 (base and large have ALBERT's dimensions).

    Raises:
      ValueError: for a size other than base and large.
    """
    if size not in ("base", "large"):
        raise ValueError(f"no BERT {size!r}: sizes are base, large")
    preset = albert_preset(size, "v1")  # the dimensions and the dropout are the same
    return preset | {"share": "none", "embedding_size": preset["hidden_size"]}


def default_config() -> ml_collections.ConfigDict:
    """A ConfigDict of every key with its default, for config files to change."""
    return ml_collections.ConfigDict(Config().to_dict())


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Converts nested dicts to a `Config`; missing keys take their defaults.

    Raises:
      ValueError: for an unknown key or a value of the wrong type or range.
    """
    config = _convert(Config, values, "config")
    _check_values(config)
    return config


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Runs a config file and applies overrides.

    Args:
      path: the file, or `file.py:argument`; the argument is given to `get_config`.
      overrides: command line words `--config.a.b=value` or `--config.a.b value`.

    Raises:
      FileNotFoundError: where there is no such file.
      ValueError: for a file without `get_config`, or a wrong key, type or value.
    """
    file, _, argument = path.partition(":")
    if not Path(file).is_file():
        raise FileNotFoundError(f"config file {file!r} does not exist")
    get_config = runpy.run_path(file).get("get_config")
    if get_config is None:
        raise ValueError(f"config file {file!r} defines no get_config()")
    values = get_config(argument) if argument else get_config()
    values = values.to_dict() if isinstance(values, ml_collections.ConfigDict) else dict(values)
    _convert(Config, values, "config")  # so that overrides meet known keys only
    for key, text in _parse_overrides(overrides).items():
        _override(values, key, text)
    return config_from_dict(values)


def validate_for_devices(config: Config, num_devices: int) -> None:
    """Checks that the batch and the model divide over the mesh.

    Raises:
      ValueError: naming the numbers that do not divide.
    """
    sizes = mesh_sizes(config.mesh, num_devices)
    shards = sizes["data"] * sizes["fsdp"]
    train, model = config.train, config.model
    microbatch = train.batch_size // train.grad_accum_steps
    if microbatch % shards:
        raise ValueError(
            f"train.batch_size={train.batch_size} over grad_accum_steps="
            f"{train.grad_accum_steps} is {microbatch} rows, which do not divide over "
            f"mesh data·fsdp={shards}; make it a multiple of {shards * train.grad_accum_steps}"
        )
    for axis, names in {
        "fsdp": ("hidden_size",),
        "tensor": ("vocab_size", "num_attention_heads", "intermediate_size"),
    }.items():
        for name in names:
            if getattr(model, name) % sizes[axis]:
                raise ValueError(
                    f"model.{name}={getattr(model, name)} does not divide over "
                    f"mesh.{axis}={sizes[axis]}; choose a mesh.{axis} that divides it"
                )


def mesh_sizes(mesh: MeshConfig, num_devices: int) -> dict[str, int]:
    """Devices along each axis, with -1 filled in.

    Raises:
      ValueError: where the axes do not multiply to `num_devices`.
    """
    sizes = dataclasses.asdict(mesh)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if any(size == 0 or size < -1 for size in sizes.values()):
        raise ValueError(f"mesh sizes must be positive, or -1 on one axis; got {sizes}")
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ValueError(f"mesh.{' and mesh.'.join(free)} are both -1; fix all but one")
    if num_devices % fixed or (not free and fixed != num_devices):
        raise ValueError(
            f"mesh {sizes} does not fit {num_devices} device(s); "
            "set mesh.data=-1 to take what the other axes leave"
        )
    return sizes | {axis: num_devices // fixed for axis in free}


def _convert(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """Builds dataclass `cls` from `values`, strictly."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a group of settings, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    converted = {}
    for key, value in values.items():
        if key not in fields:
            raise ValueError(f"unknown key {where}.{key}{_nearest(key, fields)}")
        default = fields[key].default
        if dataclasses.is_dataclass(default):
            converted[key] = _convert(type(default), value, f"{where}.{key}")
        else:
            converted[key] = _convert_value(fields[key], value, f"{where}.{key}")
    return cls(**converted)


def _convert_value(spec: dataclasses.Field, value: Any, where: str) -> Any:
    kind = type(spec.default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(
            f"{where} must be of type {kind.__name__}, not {type(value).__name__} {value!r}"
        )
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where} must be finite, not {value}")
    choices = spec.metadata.get("choices")
    if choices and value not in choices:
        raise ValueError(
            f"{where} must be one of {', '.join(choices)}; got {value!r}{_nearest(value, choices)}"
        )
    return value


def _parse_overrides(words: Sequence[str]) -> dict[str, str]:
    """`--config.a.b=1` and `--config.a.b 1` as {"a.b": "1"}."""
    overrides, words = {}, list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--config."):
            raise ValueError(f"unknown argument {word!r}; settings are --config.GROUP.KEY=VALUE")
        key, equals, text = word.removeprefix("--config.").partition("=")
        if not equals:
            if not words or words[0].startswith("--config."):
                raise ValueError(f"{word} has no value; write {word}=VALUE")
            text = words.pop(0)
        overrides[key] = text
    return overrides


def _override(values: dict[str, Any], key: str, text: str) -> None:
    """Sets `values[a][b]` for key "a.b" from text, by the type of the default."""
    *groups, name = key.split(".")
    where, cls = "config", Config
    for group in groups:
        default = getattr(cls(), group, None)
        if not dataclasses.is_dataclass(default):
            known = [f.name for f in dataclasses.fields(cls)]
            raise ValueError(f"unknown key {where}.{group}{_nearest(group, known)}")
        where, cls, values = f"{where}.{group}", type(default), values.setdefault(group, {})
    fields = {f.name: f.default for f in dataclasses.fields(cls)}
    if name not in fields:
        raise ValueError(f"unknown key {where}.{name}{_nearest(name, fields)}")
    values[name] = _parse_text(text, fields[name], f"{where}.{name}")


def _parse_text(text: str, default: Any, where: str) -> Any:
    kind = type(default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float):
            return kind(text)
    except (KeyError, ValueError):
        name = "true or false" if kind is bool else kind.__name__
        raise ValueError(f"{where} must be {name}, not {text!r}") from None
    if kind is str:
        return text
    raise ValueError(f"{where} is a group of settings; set its keys, as {where}.KEY=VALUE")


def _nearest(word: str, known: Any) -> str:
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else f"; known: {', '.join(known)}"


def _check_values(config: Config) -> None:
    """Refuses values that cannot work, whatever the devices."""
    model, data, optimizer, train = config.model, config.data, config.optimizer, config.train
    not_positive = (model, ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers",
        "num_hidden_groups", "inner_group_num", "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "type_vocab_size"))  # fmt: skip
    positive = {
        "model": not_positive,
        "data": (data, ("seq_len", "max_ngram")),
        "train": (train, ("batch_size", "num_steps", "grad_accum_steps", "log_every",
            "eval_every", "checkpoint_every", "keep_checkpoints")),
    }  # fmt: skip
    for group, (values, names) in positive.items():
        for name in names:
            _require(getattr(values, name) > 0, f"{group}.{name}", getattr(values, name), "> 0")
    dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    for group, values, name, low, high in (
        *(("model", model, name, 0, 0.999) for name in dropouts),
        ("data", data, "mask_rate", 1e-6, 1),
        ("data", data, "num_workers", 0, math.inf),
        ("train", train, "eval_batches", 0, math.inf),
        ("train", train, "seed", 0, 2**31 - 1),
        ("optimizer", optimizer, "warmup_steps", 0, train.num_steps - 1),
        ("optimizer", optimizer, "learning_rate", 0, math.inf),
        ("optimizer", optimizer, "weight_decay", 0, math.inf),
        ("optimizer", optimizer, "clip_norm", 0, math.inf),
        ("optimizer", optimizer, "b1", 0, 1 - 1e-9),
        ("optimizer", optimizer, "b2", 0, 1 - 1e-9),
        ("optimizer", optimizer, "decay_fraction", 0, 1),
    ):
        value = getattr(values, name)
        _require(low <= value <= high, f"{group}.{name}", value, f"from {low} to {high}")
    _check_divisions(config)


def _check_divisions(config: Config) -> None:
    model, data, train = config.model, config.data, config.train
    if model.hidden_size % model.num_attention_heads:
        raise ValueError(
            f"model.hidden_size={model.hidden_size} does not divide into "
            f"model.num_attention_heads={model.num_attention_heads}"
        )
    if model.num_hidden_groups > model.num_hidden_layers:
        raise ValueError(
            f"model.num_hidden_groups={model.num_hidden_groups} is more than "
            f"model.num_hidden_layers={model.num_hidden_layers}"
        )
    if data.seq_len > model.max_position_embeddings:
        raise ValueError(
            f"data.seq_len={data.seq_len} is more than "
            f"model.max_position_embeddings={model.max_position_embeddings}"
        )
    if train.batch_size % train.grad_accum_steps:
        raise ValueError(
            f"train.batch_size={train.batch_size} does not divide into "
            f"train.grad_accum_steps={train.grad_accum_steps}"
        )


def _require(holds: bool, key: str, value: Any, expected: str) -> None:
    if not holds:
        raise ValueError(f"config.{key}={value} must be {expected}")
