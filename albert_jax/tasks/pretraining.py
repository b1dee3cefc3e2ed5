"""Pretraining: masked LM with sentence-order or next-sentence prediction."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from albert_jax.tasks.base import Batch, Mean, Metrics, cross_entropy


class Pretraining:
    """Masked LM and a sentence objective.

    Attributes:
      kind: the purpose of its models, a key of `model.heads.KINDS`.
      loss_terms: metric -> the weight of its mean in the loss.
    """

    kind = "pretraining"

    def __init__(self, sentence_objective: str, sentence_weight: float = 1.0):
        """Names the sentence metrics after the objective: `sop`, `nsp` or `none`."""
        self._objective = sentence_objective
        terms = {"mlm_loss": 1.0, f"{sentence_objective}_loss": sentence_weight}
        terms.pop("none_loss", None)
        self.loss_terms: Mapping[str, float] = terms

    def loss_counts(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the number that each loss term is the mean of, over the whole batch."""
        weights = (jnp.sum(batch[name]) for name in ("mlm_weights", "sentence_weights"))
        return dict(zip(self.loss_terms, weights, strict=False))

    def metrics(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> Metrics:
        """Returns losses and metrics of a batch, as sums; dropout is on if keys are given."""
        inputs = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
        x_BTD = model(
            *(batch[name] for name in inputs), dropout_keys_B=dropout_keys_B
        ).last_hidden_state
        with jax.named_scope("masked_lm"):
            logits_BPV = model.mlm_logits(x_BTD, batch["mlm_positions"])
            loss, correct = cross_entropy(logits_BPV, batch["mlm_labels"], batch["mlm_weights"])
        counts = self.loss_counts(batch)
        found = {
            "mlm_loss": Mean(loss, counts["mlm_loss"]),
            "mlm_accuracy": Mean(correct, counts["mlm_loss"]),
        }
        if self._objective != "none":
            found |= self._sentence_metrics(model, x_BTD, batch)
        return found | _work(batch)

    @jax.named_scope("sentence")
    def _sentence_metrics(self, model: Any, x_BTD: jax.Array, batch: Batch) -> Metrics:
        logits_BC2 = model.sop_logits(x_BTD, batch["cls_positions"])
        weights_BC = batch["sentence_weights"]
        loss, correct = cross_entropy(logits_BC2, batch["sentence_labels"], weights_BC)
        count = jnp.sum(weights_BC)
        return {
            f"{self._objective}_loss": Mean(loss, count),
            f"{self._objective}_accuracy": Mean(correct, count),
        }


def _work(batch: Batch) -> Metrics:
    """Returns the work in the batch, without padding; not means, so their counts are 0."""
    chunk_11C = jnp.arange(1, batch["cls_positions"].shape[1] + 1)[None, None]
    lengths_BC = jnp.sum(batch["segment_ids"][:, :, None] == chunk_11C, axis=1, dtype=jnp.float32)
    return {
        "tokens": Mean(jnp.sum(lengths_BC), 0.0),
        "attention_pairs": Mean(jnp.sum(jnp.square(lengths_BC)), 0.0),
        "predictions": Mean(jnp.sum(batch["mlm_weights"]), 0.0),
        "chunks": Mean(jnp.sum(lengths_BC > 0, dtype=jnp.float32), 0.0),
    }
