"""Accuracy on masked pieces: by n-gram length, by frequency and by position."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from albert_jax.config import DataConfig
from albert_jax.data import masking, sentence_pairs
from albert_jax.data.loader import Rows
from albert_jax.data.row_reader import open_rows
from albert_jax.data.sampling import EVAL_SEED, example_rng
from albert_jax.data.sentence_pairs import RowSource
from albert_jax.data.tokenizers import PieceTable
from albert_jax.model.albert import abstract_model
from albert_jax.predict.pretrained import PretrainedModel


class GroupAccuracy(NamedTuple):
    """K groups of predictions: group int64 [K], accuracy float64 [K], count int64 [K]."""

    group: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def accuracy_by(correct_P: np.ndarray, groups_P: np.ndarray) -> GroupAccuracy:
    """Returns the accuracy of each nonempty group, groups ascending."""
    group, place_P, count = np.unique(groups_P, return_inverse=True, return_counts=True)
    return GroupAccuracy(group, np.bincount(place_P, correct_P) / count, count)


def piece_counts(rows: RowSource, vocab_size: int, limit: int | None = None) -> np.ndarray:
    """Returns how often each piece occurs in prepared rows, int64 [V].

    Args:
      rows: a split's rows.
      vocab_size: V.
      limit: number of rows to use, from the first; by default all.
    """
    counts = np.zeros(vocab_size, np.int64)
    for row in range(min(limit or len(rows), len(rows))):
        counts += np.bincount(rows[row]["pieces"], minlength=vocab_size)
    return counts


def frequency_bands(
    counts_V: np.ndarray, edges: tuple[int, ...] = (100, 1000, 10_000)
) -> np.ndarray:
    """Returns the band of each piece by its frequency rank, int64 [V].

    Band 0 has the `edges[0]` most frequent pieces, band 1 the following ones up to rank
    `edges[1]`, and so on; the last band has the rest.
    """
    rank_V = np.empty(len(counts_V), np.int64)
    rank_V[np.argsort(-counts_V, kind="stable")] = np.arange(len(counts_V))
    return np.searchsorted(edges, rank_V, side="right")


_INPUTS = ("input_ids", "token_type_ids", "position_ids", "segment_ids")


class HeldOut(NamedTuple):
    """All P masked pieces and all C pairs of segments of held-out examples.

    Attributes:
      labels: int32 [P], the original pieces.
      log_probs: float32 [P], the model's log-probabilities of them, in nats.
      correct: bool [P], whether they are the most likely pieces.
      positions: int32 [P], positions in their chunks, with [CLS] at 0.
      pair_labels: int32 [C], 1 if swapped (sop) or from another document (nsp).
      pair_probs: float32 [C,2].
    """

    labels: np.ndarray
    log_probs: np.ndarray
    correct: np.ndarray
    positions: np.ndarray
    pair_labels: np.ndarray
    pair_probs: np.ndarray


def held_out(
    model: PretrainedModel, data: DataConfig, limit: int | None = None, batch_size: int = 16
) -> HeldOut:
    """Runs a model over validation rows, with the same pairs and masks as its run's evaluations.

    Args:
      model: a pretrained model.
      data: its rows and how examples are drawn. A `sentence_objective` other than the model's
        tests it on an objective that it was not trained on.
      limit: number of rows to use, from the first; by default all.
      batch_size: rows computed together.

    Raises:
      FileNotFoundError, ValueError: if the rows are missing or do not fit, or the model has no
        pretraining heads.
    """
    missing = [head for head in ("pooler", "mlm", "sop") if head not in model.heads]
    if missing:
        raise ValueError(
            f"the model has no {', '.join(missing)} head; use a model with its pretraining heads"
        )
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


def summarize(found: HeldOut, objective: str) -> dict[str, float]:
    """Returns mean losses in nats and accuracies, named as in metrics.jsonl; pairs if any.

    Args:
      found: the predictions.
      objective: the sentence objective that their pairs were drawn for.
    """
    means = {
        "mlm_loss": -float(found.log_probs.mean(dtype=np.float64)),
        "mlm_accuracy": float(found.correct.mean()),
    }
    if len(found.pair_labels):
        own_C = np.take_along_axis(found.pair_probs, found.pair_labels[:, None], axis=1)[:, 0]
        means |= {
            f"{objective}_loss": -float(np.log(own_C).mean(dtype=np.float64)),
            f"{objective}_accuracy": float((own_C >= found.pair_probs.max(axis=1)).mean()),
        }
    return means


@partial(jax.jit, static_argnums=0)
def _score(graphdef: Any, params: Any, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
    """Returns log_probs_BP and correct_BP of the labels, pair_probs_BC2; compiled per model."""
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
    """Returns the predictions without empty slots."""
    masked, paired = batch["mlm_weights"] > 0, batch["sentence_weights"] > 0
    positions_BP = np.take_along_axis(batch["position_ids"], batch["mlm_positions"], axis=1)
    return HeldOut(
        batch["mlm_labels"][masked],
        log_probs_BP[masked],
        correct_BP[masked],
        positions_BP[masked],
        batch["sentence_labels"][paired],
        pairs_BC2[paired],
    )


def held_out_ngram_words(
    data: DataConfig, table: PieceTable, limit: int | None = None
) -> np.ndarray:
    """Returns the n-gram length in words of each masked piece of `held_out`, in the same order.

    Args:
      data: its rows and how examples are drawn.
      table: the tokenizer's.
      limit: number of rows, as in `held_out`.

    Returns:
      int64 [P].
    """
    rows = open_rows(data.path, "validation")
    data = dataclasses.replace(data, mask_rate=data.held_out_mask_rate)
    count = min(limit or len(rows), len(rows))
    found = [ngram_words(data, rows, table, EVAL_SEED, 0, row) for row in range(count)]
    return np.concatenate([words_T[words_T > 0] for words_T in found])


def ngram_words(
    data: DataConfig,
    rows: sentence_pairs.RowSource,
    table: PieceTable,
    seed: int,
    epoch: int,
    row: int,
) -> np.ndarray:
    """Returns the length in words of the n-gram that masks each slot of an example, 0 if unmasked.

    Makes the same draws as `loader.Rows`, from the same generator.

    Args:
      data: how examples are drawn.
      rows: the split's rows.
      table: the tokenizer's.
      seed: the run's seed, or `loader.EVAL_SEED`.
      epoch: the example's epoch.
      row: the example's row.

    Returns:
      int64 [T], without padding.
    """
    rng = example_rng(seed, epoch, row)
    pairs = sentence_pairs.choose_pairs(rows[row], data.sentence_objective, rng, rows)
    layout = sentence_pairs.lay_out([pairs], table.special)
    words = masking.find_words(layout, table)
    capacity = masking.num_slots(data.seq_len, data.mask_rate)
    cdf = masking.ngram_cdf(data.max_ngram)
    ngrams = masking.draw_ngrams(words, data.mask_rate, capacity, cdf, [rng])
    found = np.zeros(len(layout.input_ids), np.int64)
    for first, length in zip(ngrams.starts, ngrams.lengths, strict=True):
        pieces = slice(words.starts[first], words.starts[first + length])
        found[layout.piece_slots[pieces]] = length
    return np.where(table.is_text[layout.input_ids], found, 0)  # unknown pieces stay as they are
