"""Which n-gram each masked piece is part of: the loader draws it, and does not hand it on."""

import numpy as np

from albert_jax.config import DataConfig
from albert_jax.data import masking, sentence_pairs
from albert_jax.data.loader import example_rng


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
    return found
