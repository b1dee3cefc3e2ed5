"""Checks of settings' ranges and mutual consistency, independent of devices and data."""

import math
import re
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

# The largest int32, the type of sizes and step numbers on the devices.
_MOST = 2**31 - 1
_MOST_LAYERS = 1000  # far more than any use needs, but not enough to fill the memory

# Keys that must be positive, by group.
_POSITIVE = {
    "model": (
        "vocab_size",
        "embedding_size",
        "hidden_size",
        "num_hidden_layers",
        "num_hidden_groups",
        "inner_group_num",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    ),
    "data": ("seq_len", "max_ngram"),
    "train": (
        "batch_size",
        "num_steps",
        "grad_accum_steps",
        "unroll",
        "log_every",
        "eval_every",
        "checkpoint_every",
        "keep_checkpoints",
        "max_bad_steps",
    ),
}


def check_values(config: Any) -> None:
    """Checks that a `Config` can work on any devices.

    Invalid or inconsistent settings raise an error before any computation.

    Raises:
      ValueError: if a setting is invalid; the message names it, its value and what it must be.
    """
    for group, names in _POSITIVE.items():
        for name in names:
            _require_range(config, group, name, 1, _MOST)
    for name in ("num_hidden_layers", "num_hidden_groups", "inner_group_num"):
        _require_range(config, "model", name, 1, _MOST_LAYERS)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        _require_range(config, "model", name, 0, 0.999)
    _require_range(config, "data", "mask_rate", 1e-6, 1)
    _require_range(config, "data", "eval_mask_rate", 0, 1)
    _require_range(config, "data", "sentence_weight", 0, math.inf)
    _require_range(config, "data", "num_workers", 0, math.inf)
    _require_range(config, "train", "eval_batches", 0, _MOST)
    for name in ("max_loss_rise", "checkpoint_minutes", "num_epochs"):
        _require_range(config, "train", name, 0, math.inf)
    _require_range(config, "train", "seed", 0, 2**31 - 1)
    _require_range(config, "optimizer", "warmup_steps", 0, config.train.num_steps - 1)
    for name in ("learning_rate", "weight_decay", "clip_norm", "eps"):
        _require_range(config, "optimizer", name, 0, math.inf)
    for name in ("max_length", "stride", "max_question", "max_answer", "n_best"):
        _require_range(config, "task", name, 1, _MOST)
    _require_range(config, "task", "classifier_dropout", 0, 0.999)
    _require_range(config, "task", "freeze_steps", 0, _MOST)
    _require_range(config, "train", "batch_tokens", 0, _MOST)
    for name, low, high in (
        ("beam", 1, _MOST),
        ("validation_beam", 1, _MOST),
        ("label_smoothing", 0, 0.999),
        ("length_penalty", 0, math.inf),
    ):
        _require_range(config, "task.translation", name, low, high)
    _require_range(config, "task.embedding", "temperature", 1e-3, math.inf)
    for name in ("b1", "b2", "decay_fraction", "warmup_fraction"):
        _require_range(config, "optimizer", name, 0, 1)
    _check_divisions(config)
    _check_phases(config)
    _check_translation(config)


def _check_divisions(config: Any) -> None:
    model, data, train = config.model, config.data, config.train
    if train.num_epochs and config.task.name == "pretrain":
        raise ValueError(
            f"config.train.num_epochs={train.num_epochs} is for fine-tuning; set train.num_steps"
        )
    if config.optimizer.warmup_fraction and not train.num_epochs:
        raise ValueError(
            f"config.optimizer.warmup_fraction={config.optimizer.warmup_fraction} needs "
            "train.num_epochs; set optimizer.warmup_steps"
        )
    if model.hidden_size % model.num_attention_heads:
        raise ValueError(
            f"model.hidden_size={model.hidden_size} is not divisible by "
            f"model.num_attention_heads={model.num_attention_heads}"
        )
    if model.num_hidden_groups > model.num_hidden_layers:
        raise ValueError(
            f"model.num_hidden_groups={model.num_hidden_groups} must not exceed "
            f"model.num_hidden_layers={model.num_hidden_layers}"
        )
    if config.task.name != "pretrain":
        if config.task.max_length > model.max_position_embeddings:
            raise ValueError(
                f"config.task.max_length={config.task.max_length} must not exceed "
                f"model.max_position_embeddings={model.max_position_embeddings}"
            )
    elif data.seq_len > model.max_position_embeddings:
        raise ValueError(
            f"data.seq_len={data.seq_len} must not exceed "
            f"model.max_position_embeddings={model.max_position_embeddings}"
        )
    if config.task.name != "pretrain" and train.checkpoint_every % train.eval_every:
        raise ValueError(
            f"train.checkpoint_every={train.checkpoint_every} must be a multiple of "
            f"train.eval_every={train.eval_every}, because checkpoints are ranked by their metrics"
        )
    if train.attention == "cudnn" and train.dtype != "bfloat16":
        raise ValueError(
            f"train.attention='cudnn' does not support train.dtype={train.dtype!r}; "
            "use train.attention='auto'"
        )
    if train.batch_size % train.grad_accum_steps:
        raise ValueError(
            f"train.batch_size={train.batch_size} is not divisible by "
            f"train.grad_accum_steps={train.grad_accum_steps}"
        )


def _check_translation(config: Any) -> None:
    model, task = config.model, config.task
    layers = model.decoder.num_layers
    if not 0 <= layers <= _MOST_LAYERS:
        raise ValueError(
            f"config.model.decoder.num_layers={layers} must be from 0 (as many as the encoder) to "
            f"{_MOST_LAYERS}"
        )
    differs = layers not in (0, model.num_hidden_layers)
    if differs and model.decoder.share_encoder and model.share != "all":
        raise ValueError(
            f"config.model.decoder.num_layers={layers}, but the decoder shares the "
            f"{model.num_hidden_layers} layers of the encoder, which have weights of their own; "
            "set model.decoder.share_encoder=False, or num_layers=0"
        )
    if layers and layers < model.num_hidden_groups:
        raise ValueError(
            f"config.model.decoder.num_layers={layers} must be at least "
            f"model.num_hidden_groups={model.num_hidden_groups}"
        )
    if config.train.batch_tokens and task.name == "pretrain":
        raise ValueError(
            f"config.train.batch_tokens={config.train.batch_tokens} is for fine-tuning; set "
            "train.batch_size"
        )
    if task.freeze_steps and not task.freeze_encoder:
        raise ValueError(
            f"config.task.freeze_steps={task.freeze_steps} needs task.freeze_encoder=True"
        )


def short_phases(phases: Sequence[str]) -> list[tuple[int, float]]:
    """Returns the (length, share of the steps) of each of `data.phases`.

    Raises:
      ValueError: if one is not LENGTH:SHARE with a share between 0 and 1.
    """
    found = []
    for phase in phases:
        match = re.fullmatch(r"(\d+):(0?\.\d+)", phase)
        if not match or not float(match[2]):
            raise ValueError(
                f"config.data.phases: {phase!r} must be LENGTH:SHARE of the steps, such as 128:0.9"
            )
        found.append((int(match[1]), float(match[2])))
    return found


def _check_phases(config: Any) -> None:
    data = config.data
    found = short_phases(data.phases)
    lengths = [length for length, _ in found]
    if lengths != sorted(set(lengths)):
        raise ValueError(f"config.data.phases={list(data.phases)}: sort them by length")
    for length in lengths:
        if not 0 < length < data.seq_len or data.seq_len % length:
            raise ValueError(
                f"config.data.phases: length {length} must divide data.seq_len={data.seq_len} "
                "and be less"
            )
    if sum(share for _, share in found) >= 1:
        raise ValueError(
            f"config.data.phases={list(data.phases)}: the shares must add up to less than 1; the "
            "rest is for rows of data.seq_len"
        )


def _require_range(config: Any, group: str, name: str, low: float, high: float) -> None:
    value = attrgetter(f"{group}.{name}")(config)
    if not low <= value <= high:
        bounds = f"at least {low}" if high == math.inf else f"from {low} to {high}"
        raise ValueError(f"config.{group}.{name}={value} must be {bounds}")
