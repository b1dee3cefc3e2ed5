"""Pretraining: masked LM with sentence order or next sentence prediction."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from albert_jax.config import Config
from albert_jax.losses import cross_entropy
from albert_jax.metrics import Ratio, Sums, pretraining_flops
from albert_jax.model import PRETRAINING, Albert, Compute
from albert_jax.tokenizer import Tokenizer

Batch = dict[str, jax.Array]


class Pretrain:
    """What the loop needs to know of pretraining.

    Attributes:
      loss_terms: the ratios whose means add up to the loss.
    """

    loss_terms: tuple[str, ...] = ("mlm_loss", "sop_loss")

    def __init__(self, config: Config):
        """Keeps the settings; builds nothing."""
        self.config = config

    def build(self, key: jax.Array) -> nnx.Module:
        """The model, its parameters drawn from `key`."""
        train = self.config.train
        return Albert(
            self.config.model,
            PRETRAINING,
            compute=Compute.of(train),
            rngs=nnx.Rngs(key),
        )

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """What each loss term is divided by: its count over the whole batch."""
        return {
            "mlm_loss": jnp.sum(batch["mlm_weights"]),
            "sop_loss": jnp.sum(batch["sop_weights"]),
        }

    def ratios(self, model: Any, batch: Batch, keys_B: jax.Array | None) -> dict[str, Ratio]:
        """Losses and metrics of a batch, as sums; dropout is on where `keys_B` are given."""
        inputs = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
        x_BTD = model(*(batch[name] for name in inputs), keys_B=keys_B).last_hidden_state
        mlm_logits_BPV = model.mlm_logits(x_BTD, batch["mlm_positions"])
        mlm_loss, mlm_correct = cross_entropy(
            mlm_logits_BPV, batch["mlm_labels"], batch["mlm_weights"]
        )
        sop_logits_BC2 = model.sop_logits(x_BTD, batch["cls_positions"])
        sop_loss, sop_correct = cross_entropy(
            sop_logits_BC2, batch["sop_labels"], batch["sop_weights"]
        )
        counts = self.counts(batch)
        return {
            "mlm_loss": Ratio(mlm_loss, counts["mlm_loss"]),
            "mlm_accuracy": Ratio(mlm_correct, counts["mlm_loss"]),
            "sop_loss": Ratio(sop_loss, counts["sop_loss"]),
            "sop_accuracy": Ratio(sop_correct, counts["sop_loss"]),
            **_work(batch),
        }

    def flops(self, sums: Sums) -> float:
        """Model FLOPs of the training steps in `sums`."""
        return pretraining_flops(
            self.config.model,
            tokens=sums.total("tokens"),
            pairs=sums.total("attention_pairs"),
            predictions=sums.total("predictions"),
            chunks=sums.total("chunks"),
        )


def cloze(
    rows: Iterable[Mapping[str, np.ndarray]], tokenizer: Tokenizer, count: int
) -> list[tuple[str, str]]:
    """Sentences with one word masked, to show what a model fills in.

    Args:
      rows: prepared rows.
      tokenizer: theirs.
      count: how many sentences, each of another row.

    Returns:
      (text with "[MASK]", the word) for each.
    """
    found = []
    for row in itertools.islice(rows, 20 * count):
        ends = np.cumsum(row["sentence_lengths"])
        for end, length in zip(ends, row["sentence_lengths"], strict=True):
            ids = row["pieces"][end - length : end].tolist()
            pieces = tokenizer.pieces(ids)
            words = [  # whole words of one piece
                i
                for i, (piece, after) in enumerate(itertools.pairwise(pieces))
                if piece[1:].isalpha() and len(piece) > 4 and piece[0] == after[0] == "▁"
            ]
            if 10 <= length <= 30 and words:
                i = words[len(words) // 2]
                before, after = tokenizer.decode(ids[:i]), tokenizer.decode(ids[i + 1 :])
                found.append((f"{before} [MASK] {after}".strip(), pieces[i][1:]))
                break
        if len(found) == count:
            break
    return found


def _work(batch: Batch) -> dict[str, Ratio]:
    """Counts of what the batch really holds; not means, so their count is 0."""
    chunk_11C = jnp.arange(1, batch["cls_positions"].shape[1] + 1)[None, None]
    lengths_BC = jnp.sum(batch["segment_ids"][:, :, None] == chunk_11C, axis=1, dtype=jnp.float32)
    return {
        "tokens": Ratio(jnp.sum(lengths_BC), 0.0),
        "attention_pairs": Ratio(jnp.sum(jnp.square(lengths_BC)), 0.0),
        "predictions": Ratio(jnp.sum(batch["mlm_weights"]), 0.0),
        "chunks": Ratio(jnp.sum(lengths_BC > 0, dtype=jnp.float32), 0.0),
    }
