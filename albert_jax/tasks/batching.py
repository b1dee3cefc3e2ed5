"""Batches of rows of similar length, so that short rows are not padded to long ones.

The batch of a step is a pure function of (rows, seed, step), so resuming is exact.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from albert_jax.tasks.features import FeatureRow, length_of, stack

# Rows are drawn in windows of at most this many batches; within a window, rows of similar length
# share a batch. A window is shorter than an epoch. Otherwise it would hold the same row several
# times, and as the copies have the same length, they would land in the same batch.
WINDOW = 32
_WINDOWS_AN_EPOCH = 4
_SMALLEST = 16


def width_for(length: int, longest: int) -> int:
    """Returns the width of a batch: a power of two from 16 up, so that few shapes are compiled."""
    width = _SMALLEST
    while width < length:
        width *= 2
    return min(width, longest)


def widths_for(longest: int) -> list[int]:
    """Returns all of them up to `longest`."""
    return sorted({width_for(length, longest) for length in range(1, longest + 1)})


def collate(
    rows: Sequence[FeatureRow], batch_size: int, max_length: int, width: int | None = None
) -> FeatureRow:
    """Returns one batch, filled up with copies of the first row that have weight 0."""
    width = width or width_for(max(map(length_of, rows)), max_length)
    filled = [*rows, *[rows[0]] * (batch_size - len(rows))]
    batch = {name: stack([row[name] for row in filled], name, width) for name in rows[0]}
    weights = np.zeros(batch_size, np.float32)
    weights[: len(rows)] = 1
    return batch | {"weights": weights}


def window_size(rows: int, batch_size: int) -> int:
    """Returns the number of batches in a window."""
    return max(1, min(WINDOW, rows // (_WINDOWS_AN_EPOCH * batch_size)))


def train_batches(
    rows: Sequence[FeatureRow],
    batch_size: int,
    max_length: int,
    seed: int,
    first_step: int,
    steps: int,
) -> Iterator[FeatureRow]:
    """Yields the batches of the steps from `first_step` (from 0) on.

    Every epoch has its own order. The last rows of one epoch and the first of the next may share
    a window, and so a batch.
    """
    lengths = np.array([length_of(row) for row in rows])
    size = window_size(len(rows), batch_size)
    step = first_step
    while step < first_step + steps:
        window = step // size
        for batch in _window(lengths, (size, batch_size), seed, window)[step % size :]:
            if step == first_step + steps:
                return
            yield collate([rows[i] for i in batch], batch_size, max_length)
            step += 1


class TokenBatches:
    """Batches of about equally many tokens: rows of like length, the fewer the longer they are.

    Rows belong to the narrowest of a few widths that holds them, so only as many shapes are
    compiled. An epoch is every row once, in batches in random order; the last batch of a width is
    filled up with rows of weight 0. The batch of a step is a pure function of (rows, seed, step).

    Attributes:
      per_epoch: batches in an epoch.
    """

    def __init__(
        self,
        rows: Sequence[FeatureRow],
        tokens: int,
        max_length: int,
        multiple: int,
        seed: int,
    ):
        """Assigns the rows to widths.

        Args:
          rows: the training rows.
          tokens: tokens in a batch, padding included.
          max_length: of the longest row.
          multiple: the rows of a batch are a multiple of this.
          seed: of the order.

        Raises:
          ValueError: if the longest rows do not fit.
        """
        self._rows, self._seed, self._max_length = rows, seed, max_length
        widths = np.array([_width_of(length_of(row), max_length) for row in rows])
        least = multiple * int(widths.max())
        if tokens < least:
            raise ValueError(
                f"config.train.batch_tokens={tokens} does not hold {multiple} rows of "
                f"{widths.max()} tokens; raise it to at least {least}"
            )
        self._groups: list[tuple[int, int, np.ndarray]] = []
        for width in np.unique(widths):
            size = tokens // width // multiple * multiple
            self._groups.append((int(width), int(size), np.flatnonzero(widths == width)))
        self.per_epoch = sum(-(-len(members) // size) for _, size, members in self._groups)

    def stream(self, first_step: int, steps: int) -> Iterator[FeatureRow]:
        """Yields the batches of the steps from `first_step` (from 0) on."""
        epoch, plan = -1, []
        for step in range(first_step, first_step + steps):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                plan = self._plan(epoch)
            width, size, members = plan[step % self.per_epoch]
            yield collate([self._rows[i] for i in members], size, self._max_length, width)

    def _plan(self, epoch: int) -> list[tuple[int, int, np.ndarray]]:
        """Returns the width, size and rows of each batch of an epoch, in order."""
        draw = np.random.default_rng((self._seed, epoch))
        plan = [
            (width, size, order[begin : begin + size])
            for width, size, members in self._groups
            for order in [draw.permutation(members)]
            for begin in range(0, len(members), size)
        ]
        return [plan[i] for i in draw.permutation(len(plan))]


def _width_of(length: int, longest: int) -> int:
    """Returns the least of 16, 24, 32, 48, 64, 96, … that is at least `length`."""
    width = _SMALLEST
    while width < length:
        width = width * 3 // 2 if width & (width - 1) == 0 else width * 4 // 3
    return min(width, longest)


def eval_batches(
    rows: Sequence[FeatureRow],
    batch_size: int,
    max_length: int,
    width: Callable[[int, int], int] = width_for,
) -> Iterator[tuple[np.ndarray, FeatureRow]]:
    """Yields (positions of its rows, batch) until every row was in one, longest rows first."""
    order = np.argsort([-length_of(row) for row in rows], kind="stable")
    for begin in range(0, len(order), batch_size):
        members = order[begin : begin + batch_size]
        chosen = [rows[i] for i in members]
        room = width(max(map(length_of, chosen)), max_length)
        yield members, collate(chosen, batch_size, max_length, room)


def outputs_of(
    rows: Sequence[FeatureRow],
    batch_size: int,
    max_length: int,
    run: Callable[[FeatureRow], Mapping[str, np.ndarray]],
    width: Callable[[int, int], int] = width_for,
) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of `run` for each row, in order; drops the rows that fill up a batch.

    Args:
      rows: of any lengths.
      batch_size: rows to run together.
      max_length: of the rows [tokens].
      run: from a batch to outputs whose first axis is the batch's.
      width: (a batch's longest row, `max_length`) -> the width to pad it to.
    """
    found: list[Any] = [None] * len(rows)
    for members, batch in eval_batches(rows, batch_size, max_length, width):
        results = run(batch)
        for position, member in enumerate(members):
            found[member] = {name: array[position] for name, array in results.items()}
    return found


def _window(lengths: np.ndarray, shape: tuple[int, int], seed: int, window: int) -> np.ndarray:
    """Returns the row numbers of a window's batches, of shape [batches, rows per batch]."""
    size = shape[0] * shape[1]
    first = window * size
    numbers = np.arange(first, first + size)
    epochs = numbers // len(lengths)
    chosen = np.empty(size, np.int64)
    for epoch in np.unique(epochs):
        order = np.random.default_rng((seed, 0, epoch)).permutation(len(lengths))
        here = epochs == epoch
        chosen[here] = order[numbers[here] % len(lengths)]
    draw = np.random.default_rng((seed, 1, window))
    # Shuffled before the stable sort, so rows of equal length are grouped differently each time.
    chosen = draw.permutation(chosen)
    batches = chosen[np.argsort(lengths[chosen], kind="stable")].reshape(shape)
    return batches[draw.permutation(shape[0])]
