"""Sampling of rows and random draws, as pure functions of (seed, epoch, row).

No state has to be saved or shared, because both the order and the draws are computed, not stored:

- The order of an epoch is a Feistel cipher over the row numbers (Grain's `index_shuffle`). A
  cipher is a permutation, so every row occurs exactly once, and the row at any place is found in
  constant time without holding a shuffled list.
- The draws of an example come from Philox, a counter-based generator. (seed, row) is its key and
  the epoch its counter, so any process can make any example without drawing those before it.
"""

import functools
from typing import Any

import grain
import numpy as np

from albert_jax.config import DataConfig, TrainConfig
from albert_jax.config.phases import Phase, phase_at, phases_of
from albert_jax.data.row_reader import open_rows

# Larger than any seed that a 63-bit setting can hold, so that no training run has the same masks.
EVAL_SEED = 2**64 - 1
SHUFFLE_ROUNDS = 4  # of Grain's block cipher; Source: the value in grain.MapDataset.shuffle


class _Key(np.random.bit_generator.ISeedSequence):
    """Two words used directly as a Philox key; with `key=`, Philox would also request entropy."""

    def __init__(self, words: list[int]):
        self._words = np.array(words, np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        """Returns the key."""
        return self._words


def _philox(key: list[int], counter: list[int]) -> np.random.Philox:
    seed: Any = _Key(key)  # NumPy's type hints accept only its own class
    return np.random.Philox(seed, counter=np.array(counter, np.uint64))


@functools.lru_cache(maxsize=64)
def _order_seed(seed: int, epoch: int) -> int:
    # No example's generator reaches this counter, so the order is independent of the examples.
    return int(_philox([seed, epoch], [0, 0, 1, 0]).random_raw()) % 2**32


def row_of(seed: int, num_rows: int, example: int) -> tuple[int, int]:
    """Returns the row that an example of a run is made from.

    Args:
      seed: the run's seed, 0 <= seed < 2**64.
      num_rows: rows in the split, less than 2**32.
      example: the example's number in its phase: step * batch_size + its place in the batch.

    Returns:
      (epoch, row). Every row occurs once per epoch, in a different order each time.
    """
    epoch, place = divmod(int(example), num_rows)
    row = grain.experimental.index_shuffle(
        place, max_index=num_rows - 1, seed=_order_seed(seed, epoch), rounds=SHUFFLE_ROUNDS
    )
    return epoch, row


def rows_of_step(seed: int, num_rows: int, phase: Phase, step: int) -> list[tuple[int, int]]:
    """Returns (epoch, row) of a step's batch; steps count from 1, as in metrics.jsonl."""
    first = (step - phase.first_step - 1) * phase.batch_size
    return [row_of(seed, num_rows, first + place) for place in range(phase.batch_size)]


def documents_of_step(config: DataConfig, train: TrainConfig, step: int) -> list[int]:
    """Returns the corpus numbers of the documents in a step's batch, ascending."""
    phase = phase_at(phases_of(config, train), step)
    stored = open_rows(phase.data.path, "train")
    rows = rows_of_step(train.seed, len(stored), phase, step)
    return sorted({int(number) for _, row in rows for number in stored[row]["chunk_documents"]})


def example_rng(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Returns an example's generator, from which first the sentence pairs draw, then the masks."""
    return np.random.Generator(_philox([seed, row], [0, 0, 0, epoch]))
