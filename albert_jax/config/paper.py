"""Settings for the rows of the paper's tables, at the paper's scale and at a small scale.

Source: arXiv:1909.11942v6.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from albert_jax.config.choices import nearest
from albert_jax.config.load import load_config
from albert_jax.config.schema import Config, DataConfig, TrainConfig, config_from_dict

SMALL = "small"  # the suffix of a row's name, as in configs/paper/table5.py:sop,small
_WIDTH = 8  # widths are divided by this, so base has H 96 and large 128
_DEPTH = 3  # depths are divided by this, so base has 4 layers and large 8
_HEAD = 64  # widest head; Source: section 3.1, heads = H / 64
# E is divided by 4 instead of 8: 16 dimensions cannot represent 8,000 tokens and 512 positions.
_EMBEDDING = 4
# After the same 4,000 steps of 2,048 tokens, the loss of base all-shared was 5.87 nats with rows
# of 128 tokens, hardly below the unigram entropy, 5.26 with 64 and 5.34 with 32. Sentence order
# was learned only with 32.
_SMALL_LENGTH = 32
_SMALL_STEPS = 4000  # for the paper's 125k
# Settings of every row at the small scale, whose results are in benchmarks/results/paper. With so
# few steps, many predictions a step help, each with its neighbours visible.
_SMALL_SCALE = {
    "model.vocab_size": 8000,
    "model.initializer_range": 0.05,  # 0.02 at a width of 768, scaled by its square root
    "model.hidden_dropout_prob": 0.0,
    "model.attention_probs_dropout_prob": 0.0,
    "data.seq_len": _SMALL_LENGTH,
    "data.mask_rate": 0.4,
    "data.max_ngram": 1,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 300,
    "optimizer.b2": 0.98,
    "optimizer.bias_correction": True,
    "train.batch_size": 64,
    "train.dtype": "float32",
    "train.log_every": 50,
    "train.eval_every": 1000,
    "train.checkpoint_every": 1000,
}


class Scores(NamedTuple):
    """A row of the paper's numbers, in percent.

    Attributes:
      squad_v1, squad_v2: F1 and exact match on the development sets.
      mnli, sst2, race: accuracies.
      avg: the average of the five tasks, with (F1 + EM) / 2 for SQuAD.
      intrinsic: accuracies of MLM, NSP and SOP on held-out text, only in Table 5.
    """

    squad_v1: tuple[float, float]
    squad_v2: tuple[float, float]
    mnli: float
    sst2: float
    race: float
    avg: float
    intrinsic: tuple[float, float, float] | None = None


class TableRow(NamedTuple):
    """A row of a table.

    Attributes:
      base: the config file that it modifies, in configs/: `base.py:v1`.
      changes: dotted setting name -> value, where it differs from the config file.
      scores: the scores in the paper.
      parameters: the number of parameters in the paper, in millions; None if not given.
      small: setting -> value, where the small scale differs from the result of `shrink`.
      start: the row whose parameters this one starts from.
    """

    base: str
    changes: Mapping[str, Any]
    scores: Scores
    parameters: int | None = None
    small: Mapping[str, Any] = {}
    start: str | None = None


def row_config(file: str, rows: Mapping[str, TableRow], argument: str) -> ConfigDict:
    """Returns the settings of a row, for `get_config` in a table's file.

    Args:
      file: the table's file, in configs/paper.
      rows: its rows.
      argument: the row's name, followed by `,small` for the small scale.

    Raises:
      ValueError: if the row or the scale does not exist.
    """
    name, comma, scale = argument.partition(",")
    if name not in rows:
        raise ValueError(f"{file}: no row {name!r}{nearest(name, rows)}")
    if comma and scale != SMALL:
        raise ValueError(f"{file}: unknown scale {scale!r}; use {name} or {name},{SMALL}")
    row, configs = rows[name], Path(file).parents[1]
    config = _changed(load_config(f"{configs}/{row.base}"), row.changes)
    if scale:
        config = _changed(shrink(config), row.small)
    if row.start is not None:
        table = Path(file).stem + (f"-{SMALL}" if scale else "")
        config = dataclasses.replace(config, init_from=f"runs/{table}/{row.start}")
    return ConfigDict(config.to_dict())


def shrink(config: Config) -> Config:
    """Returns the same experiment at a scale for 2 CPU cores.

    Widths (H, feed-forward) are divided by 8, E by 4 but limited to H, depth by 3; heads are at
    most 64 wide. 4,000 steps stand for the paper's 125k. Sharing, groups and sentence objective
    stay the same; everything else is `_SMALL_SCALE`.
    """
    model = config.model
    hidden = model.hidden_size // _WIDTH
    shrunk = dataclasses.replace(
        model,
        hidden_size=hidden,
        embedding_size=min(model.embedding_size // _EMBEDDING, hidden),
        intermediate_size=model.intermediate_size // _WIDTH,
        num_attention_heads=math.ceil(hidden / _HEAD),
        num_hidden_layers=math.ceil(model.num_hidden_layers / _DEPTH),
    )
    data = DataConfig(
        path=config.data.path.replace("wikibooks", f"small{_SMALL_LENGTH}"),
        sentence_objective=config.data.sentence_objective,
    )
    train = TrainConfig(num_steps=round(_SMALL_STEPS * config.train.num_steps / 125_000))
    return _changed(Config(model=shrunk, data=data, train=train), _SMALL_SCALE)


def _changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Returns the settings with some replaced, given by dotted names."""
    values = ConfigDict(config.to_dict())
    values.update_from_flattened_dict(dict(changes))
    return config_from_dict(values.to_dict())
