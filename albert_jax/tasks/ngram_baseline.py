"""What counting gives on held-out masks: n-grams to the left and to the right of a masked token.

A model that has learnt contexts does better. The neighbours of a mask, up to two on each side, are
looked up in the training rows. Each order is smoothed by absolute discounting and interpolated
with the next lower one. Predictions from the left, from the right, from both neighbours together,
and the product of left and right are mixed with weights fitted on training rows that were not
counted.

Source: Ney, Essen and Kneser 1994 (absolute discounting).
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import sparse

from albert_jax.config import DataConfig
from albert_jax.data.loader import Rows
from albert_jax.data.row_reader import open_rows
from albert_jax.data.sampling import EVAL_SEED
from albert_jax.data.sentence_pairs import RowSource

_DISCOUNT = 0.75  # between 0 and 1; Source: Ney, Essen and Kneser 1994
_TUNED = 0.02  # fraction of the training rows that the weights are fitted on
_MOST_TUNED = 1000  # rows
_EDGES = (
    1,
    3,
    10,
)  # masks whose neighbours were seen this often have mixture weights of their own
_ROUNDS = 50  # of expectation maximization
_BATCH = 256  # masks; a distribution over 30,000 tokens for each takes 30 MB


class NgramBaseline(NamedTuple):
    """What counting gives on held-out masks.

    Attributes:
      loss: mean cross entropy, in nats per masked token.
      accuracy: the fraction of masked tokens that were the most likely ones.
      masks: the number of masked tokens.
      counted: the number of tokens counted.
    """

    loss: float
    accuracy: float
    masks: int
    counted: int


def ngram_baseline(data: DataConfig, limit: int = 20_000_000) -> NgramBaseline:
    """Predicts the masks of a run's held-out rows from counts over its training rows.

    Takes a quarter of a minute for 4 million tokens.

    Args:
      data: the rows, and how examples are drawn from them.
      limit: count no more than this many tokens; each takes about 100 bytes of memory.

    Raises:
      FileNotFoundError, ValueError: if the rows are missing or do not fit.
    """
    stored = open_rows(data.path, "train")
    held_out = Rows(data, "validation")
    tuned = min(max(1, int(_TUNED * len(stored))), _MOST_TUNED)
    text = _text(stored, range(tuned, len(stored)), limit, held_out.table.special.sep)
    model = NgramModel(text, held_out.manifest["vocab_size"])
    # Its weights are fitted on masks as frequent as those that it will predict.
    same_masks = dataclasses.replace(data, mask_rate=data.held_out_mask_rate)
    model.fit(*_masks(Rows(same_masks, "train"), tuned))
    probability, is_best = model.predict(*_masks(held_out, held_out.num_rows))
    return NgramBaseline(
        float(-np.log(probability).mean()), float(is_best.mean()), len(is_best), model.counted
    )


class NgramModel:
    """Counts of a text, and the distributions of masked tokens that follow from them.

    Attributes:
      counted: the number of tokens counted.
    """

    def __init__(self, text: np.ndarray, vocab_size: int):
        """Counts.

        Args:
          text: int64[n] ids, with two [SEP] at each end and between chunks.
          vocab_size: the number of ids.
        """
        middle = text[2:-2]
        is_token = middle != text[0]
        windows = (text[:-4], text[1:-3], text[3:-1], text[4:])
        contexts = np.stack(windows, axis=1)[is_token]
        tokens = middle[is_token]
        self.counted, self._vocab_size = len(tokens), vocab_size
        counts = np.bincount(tokens, minlength=vocab_size) + 1.0
        self._unigram = (counts / counts.sum()).astype(np.float32)
        self._tables = [_Table(keys, tokens, vocab_size) for keys in self._keys(contexts)]
        self._weights: np.ndarray | None = None

    def _keys(self, contexts: np.ndarray) -> list[np.ndarray]:
        """Returns numbers for the neighbours: left, both left, right, both right, left and right.

        Args:
          contexts: int64[b,4], two ids on each side.
        """
        left2, left, right, right2 = contexts.T
        size = self._vocab_size
        return [left, left2 * size + left, right, right * size + right2, left * size + right]

    def components(self, contexts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns what is mixed: distributions [b,K,V], and the group of each context [b].

        Masked neighbours were never counted, so that the lower orders decide.
        """
        left1, left2, right1, right2, both = self._tables
        keys = self._keys(contexts)
        base = np.broadcast_to(self._unigram, (len(contexts), self._vocab_size))
        left = left2.interpolate(left1.interpolate(base, keys[0]), keys[1])
        right = right2.interpolate(right1.interpolate(base, keys[2]), keys[3])
        product = left * right / base
        product /= product.sum(axis=1, keepdims=True)
        inside = both.interpolate(product, keys[4])
        group = np.searchsorted(_EDGES, both.totals(keys[4]), side="right")
        return np.stack([base, left, right, product, inside], axis=1), group

    def fit(self, contexts: np.ndarray, tokens: np.ndarray) -> None:
        """Fits each group's weights to masks [b] in their contexts [b,4], by EM."""
        likelihoods, groups = [], []
        for context, token in _batches(contexts, tokens):
            parts, group = self.components(context)
            likelihoods.append(parts[np.arange(len(token)), :, token])
            groups.append(group)
        likelihood, group = np.concatenate(likelihoods), np.concatenate(groups)
        parts = likelihood.shape[1]
        weights = np.full((len(_EDGES) + 1, parts), 1 / parts)
        for g in range(len(weights)):
            own = likelihood[group == g]
            for _ in range(_ROUNDS if len(own) else 0):
                share = own * weights[g]
                weights[g] = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
        self._weights = weights

    def predict(self, contexts: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns each masked token's probability [b], and whether no other has a higher one.

        Raises:
          ValueError: before `fit`.
        """
        if self._weights is None:
            raise ValueError("the mixture has no weights yet; call fit first")
        probability, is_best = [], []
        for context, token in _batches(contexts, tokens):
            parts, group = self.components(context)
            mixed = np.matmul(self._weights[group][:, None], parts)[:, 0]
            found = mixed[np.arange(len(token)), token]
            probability.append(found)
            is_best.append(found >= mixed.max(axis=1))
        return np.concatenate(probability), np.concatenate(is_best)


class _Table:
    """How often each token occurs in each context; a context is the number of some neighbours."""

    def __init__(self, keys: np.ndarray, tokens: np.ndarray, vocab_size: int):
        self._keys, rows = np.unique(keys, return_inverse=True)
        ones = np.ones(len(rows), np.float32)
        # The constructor adds up entries of the same row and column.
        self._counts = sparse.csr_matrix((ones, (rows, tokens)), (len(self._keys), vocab_size))
        self._totals = np.asarray(self._counts.sum(axis=1)).ravel()
        self._kinds = np.diff(self._counts.indptr)

    def totals(self, keys: np.ndarray) -> np.ndarray:
        """Returns how often each context was counted."""
        row, is_known = self._find(keys)
        return np.where(is_known, self._totals[row], 0)

    def interpolate(self, lower: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Returns the contexts' distributions [b,V], given those of the next lower order."""
        row, is_known = self._find(keys)
        total = np.where(is_known, self._totals[row], 1)
        left_over = np.where(is_known, _DISCOUNT * self._kinds[row] / total, 1)
        mixed = left_over[:, None].astype(np.float32) * lower
        found = self._counts[row].tocoo()
        seen = is_known[found.row]
        at, token = found.row[seen], found.col[seen]
        mixed[at, token] += (found.data[seen] - _DISCOUNT) / total[at]
        return mixed

    def _find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return row, self._keys[row] == keys


def _text(stored: RowSource, rows: range, limit: int, sep: int) -> np.ndarray:
    """Returns the text of rows in the form that `NgramModel` takes."""
    between = np.array([sep, sep])
    parts, size = [between], 0
    for number in rows:
        if size >= limit:
            break
        row = stored[number]
        ends = np.cumsum(row["sentence_lengths"])[np.cumsum(row["chunk_sentences"]) - 1]
        for chunk in np.split(row["pieces"], ends[:-1]):
            parts += [chunk, between]
        size += len(row["pieces"])
    return np.concatenate(parts).astype(np.int64)


def _masks(rows: Rows, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the contexts [b,4] of all masks in the first rows, and the masked tokens [b].

    The context is what the model sees: neighbours may be masked, or replaced by random tokens.
    """
    around = np.array([0, 1, 3, 4])  # two on each side, in the row padded by two
    special = rows.table.special
    contexts, tokens = [], []
    for row in range(count):
        example = rows.make_example(EVAL_SEED, 0, row)
        real = example["mlm_weights"] > 0
        padded = np.pad(example["input_ids"], 2, constant_values=special.sep)
        padded[padded == special.cls] = special.sep
        contexts.append(padded[example["mlm_positions"][real][:, None] + around])
        tokens.append(example["mlm_labels"][real])
    return np.concatenate(contexts).astype(np.int64), np.concatenate(tokens).astype(np.int64)


def _batches(*arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    for first in range(0, len(arrays[0]), _BATCH):
        yield [array[first : first + _BATCH] for array in arrays]
