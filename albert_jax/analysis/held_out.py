"""What a pretrained model says of held-out examples, prediction by prediction."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from albert_jax.config import DataConfig
from albert_jax.convert.mapping import abstract_model
from albert_jax.data.loader import EVAL_SEED, Rows
from albert_jax.pretrained import Pretrained

_INPUTS = ("input_ids", "token_type_ids", "position_ids", "segment_ids")


class HeldOut(NamedTuple):
    """All P masked pieces and all C pairs of segments of some held-out examples.

    Attributes:
      labels: int32 [P], the pieces that were there.
      log_probs: float32 [P], what the model gives them, in nats.
      correct: bool [P], whether they are the likeliest.
      positions: int32 [P], places in their chunks, [CLS] being 0.
      pair_labels: int32 [C], 1 where swapped (sop) or from another document (nsp).
      pair_probs: float32 [C,2].
    """

    labels: np.ndarray
    log_probs: np.ndarray
    correct: np.ndarray
    positions: np.ndarray
    pair_labels: np.ndarray
    pair_probs: np.ndarray


def held_out(
    model: Pretrained, data: DataConfig, limit: int | None = None, batch_size: int = 16
) -> HeldOut:
    """Runs a model over validation rows, with the pairs and masks of its run's evaluations.

    Args:
      model: a pretrained model.
      data: its rows and how examples are drawn; another `sentence_objective` than the model's
        asks it what it was not taught.
      limit: rows, the first ones; by default all.
      batch_size: rows computed together.

    Raises:
      FileNotFoundError, ValueError: where the rows are missing or do not fit, or the model
        has no heads of pretraining.
    """
    missing = [head for head in ("pooler", "mlm", "sop") if head not in model.heads]
    if missing:
        raise ValueError(f"the model has no {', '.join(missing)}: it was not pretrained, or cut")
    rows = Rows(data, "validation")
    count = min(limit or rows.num_rows, rows.num_rows)
    graphdef, _ = nnx.split(abstract_model(model.config, model.params), nnx.Param)
    parts = []
    for first in range(0, count, batch_size):
        members = [i for i in range(first, first + batch_size) if i < count]
        missing_rows = [None] * (batch_size - len(members))
        batch = rows.make_batch(EVAL_SEED, [*((0, i) for i in members), *missing_rows])
        parts.append(_select(batch, *jax.device_get(_score(graphdef, model.params, batch))))
    return HeldOut(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def summarize(found: HeldOut) -> dict[str, float]:
    """Mean losses in nats and accuracies, named as in metrics.jsonl; pairs where there are any."""
    means = {
        "mlm_loss": -float(found.log_probs.mean(dtype=np.float64)),
        "mlm_accuracy": float(found.correct.mean()),
    }
    if len(found.pair_labels):
        own_C = np.take_along_axis(found.pair_probs, found.pair_labels[:, None], axis=1)[:, 0]
        means |= {
            "sop_loss": -float(np.log(own_C).mean(dtype=np.float64)),
            "sop_accuracy": float((own_C >= found.pair_probs.max(axis=1)).mean()),
        }
    return means


@partial(jax.jit, static_argnums=0)
def _score(graphdef: Any, params: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
    """log_probs_BP and correct_BP of the labels, pair_probs_BC2; compiled once a model."""
    network = nnx.merge(graphdef, params)
    x_BTD = network(*(batch[name] for name in _INPUTS)).last_hidden_state
    logits_BPV = network.mlm_logits(x_BTD, batch["mlm_positions"])
    labels_BP1 = batch["mlm_labels"][..., None]
    logits_BP = jnp.take_along_axis(logits_BPV, labels_BP1, axis=-1)[..., 0]
    log_probs_BP = logits_BP - jax.nn.logsumexp(logits_BPV, axis=-1)
    correct_BP = logits_BP >= jnp.max(logits_BPV, axis=-1)
    pairs_BC2 = jax.nn.softmax(network.sop_logits(x_BTD, batch["cls_positions"]))
    return log_probs_BP, correct_BP, pairs_BC2


def _select(
    batch: Mapping[str, np.ndarray],
    log_probs_BP: np.ndarray,
    correct_BP: np.ndarray,
    pairs_BC2: np.ndarray,
) -> HeldOut:
    """What is predicted, without the empty slots."""
    masked, paired = batch["mlm_weights"] > 0, batch["sop_weights"] > 0
    positions_BP = np.take_along_axis(batch["position_ids"], batch["mlm_positions"], axis=1)
    return HeldOut(
        batch["mlm_labels"][masked],
        log_probs_BP[masked],
        correct_BP[masked],
        positions_BP[masked],
        batch["sop_labels"][paired],
        pairs_BC2[paired],
    )
