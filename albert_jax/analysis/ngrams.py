"""Which n-gram each masked piece is part of: the loader draws it, and does not hand it on."""

import numpy as np

from albert_jax.config import DataConfig
from albert_jax.data import masking, sentence_pairs
from albert_jax.data.loader import EVAL_SEED, example_rng
from albert_jax.data.stored_rows import open_rows
from albert_jax.tokenizer import NUM_SPECIAL


def held_out_ngram_words(
    data: DataConfig, word_starts: np.ndarray, limit: int | None = None
) -> np.ndarray:
    """Words of the n-gram that each of `held_out`'s masked pieces was masked in, in its order.

    Args:
      data: its rows and how examples are drawn.
      word_starts: bool [V], the tokenizer's.
      limit: rows, as in `held_out`.

    Returns:
      int64 [P].
    """
    rows = open_rows(data.path, "validation")
    count = min(limit or len(rows), len(rows))
    found = [ngram_words(data, rows, word_starts, EVAL_SEED, 0, row) for row in range(count)]
    return np.concatenate([words_T[words_T > 0] for words_T in found])


def ngram_words(
    data: DataConfig,
    rows: sentence_pairs.RowSource,
    word_starts: np.ndarray,
    seed: int,
    epoch: int,
    row: int,
) -> np.ndarray:
    """Words of the n-gram that each slot of an example is masked in, 0 where it is not.

    Draws what `loader.Rows` draws, from the same generator.

    Args:
      data: how examples are drawn.
      rows: the split's rows.
      word_starts: bool [V], the tokenizer's.
      seed: the run's seed, or `loader.EVAL_SEED`.
      epoch: of the example.
      row: of the example.

    Returns:
      int64 [T], without padding.
    """
    rng = example_rng(seed, epoch, row)
    pairs = sentence_pairs.choose_pairs(rows[row], data.sentence_objective, rng, rows)
    layout = sentence_pairs.lay_out([pairs])
    words = masking.find_words(layout, word_starts)
    capacity = masking.num_slots(data.seq_len, data.mask_rate)
    cdf = masking.ngram_cdf(data.max_ngram)
    ngrams = masking.draw_ngrams(words, data.mask_rate, capacity, cdf, [rng])
    found = np.zeros(len(layout.input_ids), np.int64)
    for first, length in zip(ngrams.starts, ngrams.lengths, strict=True):
        pieces = slice(words.starts[first], words.starts[first + length])
        found[layout.piece_slots[pieces]] = length
    return np.where(layout.input_ids < NUM_SPECIAL, 0, found)  # unknown pieces stay as they are
