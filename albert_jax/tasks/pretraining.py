"""Pretraining: masked LM with sentence order or next sentence prediction."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from albert_jax.config import Config
from albert_jax.model import PRETRAINING, Albert, Compute
from albert_jax.model.flops import model_flops
from albert_jax.tasks.base import Mean, MeanSums, cross_entropy

Batch = dict[str, jax.Array]


class Pretraining:
    """What the loop needs to know of pretraining.

    Attributes:
      loss_terms: the metrics whose means add up to the loss.
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

    def loss_weights(self, batch: Batch) -> dict[str, jax.Array]:
        """What each loss term is divided by: its count over the whole batch."""
        return {
            "mlm_loss": jnp.sum(batch["mlm_weights"]),
            "sop_loss": jnp.sum(batch["sentence_weights"]),
        }

    def metrics(
        self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None
    ) -> dict[str, Mean]:
        """Losses and metrics of a batch, as sums; dropout is on where keys are given."""
        inputs = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
        x_BTD = model(
            *(batch[name] for name in inputs), dropout_keys_B=dropout_keys_B
        ).last_hidden_state
        mlm_logits_BPV = model.mlm_logits(x_BTD, batch["mlm_positions"])
        mlm_loss, mlm_correct = cross_entropy(
            mlm_logits_BPV, batch["mlm_labels"], batch["mlm_weights"]
        )
        sop_logits_BC2 = model.sop_logits(x_BTD, batch["cls_positions"])
        sop_loss, sop_correct = cross_entropy(
            sop_logits_BC2, batch["sentence_labels"], batch["sentence_weights"]
        )
        counts = self.loss_weights(batch)
        return {
            "mlm_loss": Mean(mlm_loss, counts["mlm_loss"]),
            "mlm_accuracy": Mean(mlm_correct, counts["mlm_loss"]),
            "sop_loss": Mean(sop_loss, counts["sop_loss"]),
            "sop_accuracy": Mean(sop_correct, counts["sop_loss"]),
            **_work(batch),
        }

    def flops(self, sums: MeanSums) -> float:
        """Model FLOPs of the training steps in `sums`."""
        return model_flops(
            self.config.model,
            tokens=sums.total("tokens"),
            pairs=sums.total("attention_pairs"),
            predictions=sums.total("predictions"),
            chunks=sums.total("chunks"),
        )


def _work(batch: Batch) -> dict[str, Mean]:
    """Counts of what the batch really holds; not means, so their count is 0."""
    chunk_11C = jnp.arange(1, batch["cls_positions"].shape[1] + 1)[None, None]
    lengths_BC = jnp.sum(batch["segment_ids"][:, :, None] == chunk_11C, axis=1, dtype=jnp.float32)
    return {
        "tokens": Mean(jnp.sum(lengths_BC), 0.0),
        "attention_pairs": Mean(jnp.sum(jnp.square(lengths_BC)), 0.0),
        "predictions": Mean(jnp.sum(batch["mlm_weights"]), 0.0),
        "chunks": Mean(jnp.sum(lengths_BC > 0, dtype=jnp.float32), 0.0),
    }
