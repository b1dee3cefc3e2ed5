"""Which rows make which batch, and what each example draws: functions of (seed, epoch, row)."""

import functools
from typing import Any

import grain
import numpy as np

from albert_jax.config import DataConfig, TrainConfig
from albert_jax.data.row_reader import open_rows

# Above all seeds that a 63-bit setting can hold, so that no training run shares its masks.
EVAL_SEED = 2**64 - 1
SHUFFLE_ROUNDS = 4  # of Grain's block cipher; Source: what grain.MapDataset.shuffle uses


class _Key(np.random.bit_generator.ISeedSequence):
    """Two words that are a Philox key as they stand. Given `key=`, Philox asks for entropy too."""

    def __init__(self, words: list[int]):
        self._words = np.array(words, np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        """Returns the key."""
        return self._words


def _philox(key: list[int], counter: list[int]) -> np.random.Philox:
    seed: Any = _Key(key)  # numpy's types know its own class alone
    return np.random.Philox(seed, counter=np.array(counter, np.uint64))


@functools.lru_cache(maxsize=64)
def _order_seed(seed: int, epoch: int) -> int:
    # A counter that no example's generator reaches keeps the order apart from the examples.
    return int(_philox([seed, epoch], [0, 0, 1, 0]).random_raw()) % 2**32


def row_of(seed: int, num_rows: int, example: int) -> tuple[int, int]:
    """Says which row an example of a run is made of.

    Args:
      seed: the run's seed, 0 <= seed < 2**64.
      num_rows: rows in the split, less than 2**32.
      example: the example's number in the run: step * batch_size + its place in the batch.

    Returns:
      (epoch, row). In each epoch every row comes once, in an order of its own.
    """
    epoch, place = divmod(int(example), num_rows)
    row = grain.experimental.index_shuffle(
        place, max_index=num_rows - 1, seed=_order_seed(seed, epoch), rounds=SHUFFLE_ROUNDS
    )
    return epoch, row


def rows_of_step(seed: int, num_rows: int, batch_size: int, step: int) -> list[tuple[int, int]]:
    """(epoch, row) of each row of a step's batch; steps count from 1, as in metrics.jsonl."""
    first = (step - 1) * batch_size
    return [row_of(seed, num_rows, example) for example in range(first, first + batch_size)]


def documents_of_step(config: DataConfig, train: TrainConfig, step: int) -> list[int]:
    """Numbers in the corpus of the documents in a step's batch, ascending."""
    stored = open_rows(config.path, "train")
    rows = rows_of_step(train.seed, len(stored), train.batch_size, step)
    return sorted({int(number) for _, row in rows for number in stored[row]["chunk_documents"]})


def example_rng(seed: int, epoch: int, row: int) -> np.random.Generator:
    """Returns the generator of one example: first the sentence pairs draw, then the masks."""
    return np.random.Generator(_philox([seed, row], [0, 0, 0, epoch]))
