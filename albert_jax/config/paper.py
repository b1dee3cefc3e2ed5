"""Settings for the rows of the paper's tables, at the paper's scale and at a small scale.

Source: arXiv:1909.11942v6.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from albert_jax.config.load import load_config
from albert_jax.config.schema import Config, config_from_dict, nearest

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
        shrunk = shrink(config, load_config(f"{configs}/small.py"))
        config = _changed(shrunk, row.small)
    if row.start is not None:
        table = Path(file).stem + (f"-{SMALL}" if scale else "")
        config = dataclasses.replace(config, init_from=f"runs/{table}/{row.start}")
    return ConfigDict(config.to_dict())


def shrink(config: Config, small: Config) -> Config:
    """Returns the same experiment at a scale for 2 CPU cores.

    Widths (H, feed-forward) are divided by 8, E by 4 but limited to H, depth by 3; heads are at
    most 64 wide. Vocabulary, initializer range, dropout, masks, tokens per batch, optimizer and
    schedule are those of `small`, configs/small.py, in rows of 32; 4,000 steps replace the paper's
    125k. Sharing, groups and sentence objective stay the same.
    """
    model = config.model
    hidden = model.hidden_size // _WIDTH
    shrunk = dataclasses.replace(
        model,
        vocab_size=small.model.vocab_size,
        initializer_range=small.model.initializer_range,
        hidden_dropout_prob=small.model.hidden_dropout_prob,
        attention_probs_dropout_prob=small.model.attention_probs_dropout_prob,
        hidden_size=hidden,
        embedding_size=min(model.embedding_size // _EMBEDDING, hidden),
        intermediate_size=model.intermediate_size // _WIDTH,
        num_attention_heads=math.ceil(hidden / _HEAD),
        num_hidden_layers=math.ceil(model.num_hidden_layers / _DEPTH),
    )
    train = dataclasses.replace(
        small.train,
        batch_size=small.train.batch_size * small.data.seq_len // _SMALL_LENGTH,
        num_steps=round(_SMALL_STEPS * config.train.num_steps / 125_000),
    )
    return dataclasses.replace(
        small,
        model=shrunk,
        data=dataclasses.replace(
            small.data,
            path=config.data.path.replace("wikibooks", f"small{_SMALL_LENGTH}"),
            seq_len=_SMALL_LENGTH,
            sentence_objective=config.data.sentence_objective,
        ),
        train=train,
    )


def _changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Returns the settings with some replaced, given by dotted names."""
    values = ConfigDict(config.to_dict())
    values.update_from_flattened_dict(dict(changes))
    return config_from_dict(values.to_dict())
