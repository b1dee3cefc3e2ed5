"""Batches of examples, each a pure function of (seed, epoch, row).

A run sees examples number 0, 1, 2, ...; batch `step` starts at example step * batch_size.
`row_of` maps an example to its epoch and row, and `Rows` makes the example. The step number is
therefore the only position in the data: no reader state has to be saved, and any number of
processes, worker processes and threads gives the same batches.

Nothing here uses JAX, and no reader process starts a JAX backend.
"""

from collections.abc import Iterable, Iterator, Sequence

import grain
import numpy as np
from absl import flags

from albert_jax.config import DataConfig
from albert_jax.config.choices import one_of
from albert_jax.data import masking, sentence_pairs
from albert_jax.data.row_reader import DamagedRowsError, open_rows, read_manifest
from albert_jax.data.sampling import EVAL_SEED, example_rng, row_of
from albert_jax.data.tokenizers import load_tokenizer

Batch = dict[str, np.ndarray]
Positions = slice | Sequence[int] | np.ndarray
# The number of batches made ahead, and of threads that make them. More threads hide the latency of
# a slow disk, although Python makes only one batch at a time.
READ_AHEAD = 4
WORKER_READ_AHEAD = 2


class Rows:
    """The rows of a split, and examples made from them; can be pickled.

    Attributes:
      manifest: the data's description by `prepare`.
      num_rows: rows in the split.
      table: what masking needs to know of the vocabulary.
    """

    def __init__(self, config: DataConfig, split: str):
        """Opens prepared rows.

        Raises:
          FileNotFoundError, ValueError: if data is missing, or contradicts the config or itself.
        """
        one_of("data.sentence_objective", config.sentence_objective, sentence_pairs.OBJECTIVES)
        self.manifest = read_manifest(config)
        self._config = config
        self._source = open_rows(config.path, split)
        self.num_rows = len(self._source)
        tokenizer = load_tokenizer(config.path)
        for what, found, stated in (
            (f"rows of {split}", self.num_rows, self.manifest["rows"][split]),
            (
                f"sha256 of {tokenizer.vocabulary.file}",
                tokenizer.sha256,
                self.manifest["tokenizer_sha256"],
            ),
            (
                f"vocab_size of {tokenizer.vocabulary.file}",
                tokenizer.vocab_size,
                self.manifest["vocab_size"],
            ),
        ):
            if found != stated:
                raise ValueError(
                    f"data.path {config.path!r}: {what} is {found}, but manifest.json says "
                    f"{stated}; prepare the data again"
                )
        self.table = tokenizer.table
        self._cdf = masking.ngram_cdf(config.max_ngram)
        is_held_out = split == "validation"
        self._mask_rate = config.held_out_mask_rate if is_held_out else config.mask_rate
        self._num_slots = masking.num_slots(config.seq_len, self._mask_rate)

    def make_example(self, seed: int, epoch: int, row: int) -> Batch:
        """Makes one example: a batch's arrays without their first axis."""
        return {name: x[0] for name, x in self.make_batch(seed, [(epoch, row)]).items()}

    def make_batch(self, seed: int, examples: Iterable[tuple[int, int] | None]) -> Batch:
        """Makes a batch of B examples.

        Args:
          seed: the seed of the draws.
          examples: (epoch, row) of each example; None yields an empty row without weights.

        Returns:
          int32 arrays, *_weights float32, for T tokens, P predictions and C chunks:
          input_ids, token_type_ids, position_ids, segment_ids [B, T], where segment_ids is the
          number of the chunk from 1, 0 = padding; mlm_positions, mlm_labels, mlm_weights [B, P];
          cls_positions, sentence_labels, sentence_weights [B, C].
        """
        examples = list(examples)
        filled = [b for b, example in enumerate(examples) if example is not None]
        batch = self._empty(len(examples))
        if filled:
            keys = [example for example in examples if example is not None]
            for counts, arrays in self._make(seed, keys):
                width = np.zeros(len(examples), np.int64)
                width[filled] = counts
                for name, values in arrays.items():
                    batch[name][np.arange(batch[name].shape[1]) < width[:, None]] = values
        return batch

    def _empty(self, batch_size: int) -> Batch:
        """Returns a batch of padding, whose id is 0."""
        sizes = (
            (self._config.seq_len, "input_ids token_type_ids position_ids segment_ids"),
            (self._num_slots, "mlm_positions mlm_labels mlm_weights"),
            (self.manifest["max_chunks"], "cls_positions sentence_labels sentence_weights"),
        )
        return {
            name: np.zeros((batch_size, n), np.float32 if "weights" in name else np.int32)
            for n, names in sizes
            for name in names.split()
        }

    def _make(
        self, seed: int, examples: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """Makes examples without padding: their lengths, and their concatenated arrays."""
        config = self._config
        rngs = [example_rng(seed, epoch, row) for epoch, row in examples]
        layout = sentence_pairs.lay_out(
            [
                sentence_pairs.choose_pairs(
                    self._source[row], config.sentence_objective, rng, self._source
                )
                for (_, row), rng in zip(examples, rngs, strict=True)
            ],
            self.table.special,
        )
        self._check(layout, examples)
        masked = masking.mask(
            layout, self.table, self._mask_rate, self._num_slots, self._cdf, rngs
        )
        yield (
            layout.slots,
            {
                "input_ids": masked.input_ids,
                "token_type_ids": layout.token_type_ids,
                "position_ids": layout.position_ids,
                "segment_ids": layout.segment_ids,
            },
        )
        yield (
            masked.counts,
            {
                "mlm_positions": masked.positions,
                "mlm_labels": masked.labels,
                "mlm_weights": np.ones(len(masked.labels), np.float32),
            },
        )
        yield (
            layout.chunks,
            {
                "cls_positions": layout.cls_positions,
                "sentence_labels": layout.sentence_labels,
                "sentence_weights": layout.sentence_weights,
            },
        )

    def _check(self, layout: sentence_pairs.Layout, examples: Sequence[tuple[int, int]]) -> None:
        most = self.manifest["max_chunks"]
        for (_, row), n, m in zip(examples, layout.slots, layout.chunks, strict=True):
            if n > self._config.seq_len or m > most:
                raise ValueError(
                    f"data.path {self._config.path!r}: row {row} has {n} tokens and {m} chunks, "
                    "more than manifest.json allows; prepare the data again"
                )
        if (unknown := layout.input_ids >= len(self.table.is_text)).any():
            slot = int(np.argmax(unknown))
            row = np.repeat([row for _, row in examples], layout.slots)[slot]
            raise DamagedRowsError(
                self._config.path,
                f"row {row} holds piece {layout.input_ids[slot]}, but the vocabulary has "
                f"{len(self.table.is_text)}",
            )


class _Steps:
    """The function that Grain maps over step numbers: makes this process's part of a batch."""

    def __init__(self, rows: Rows, seed: int, batch_size: int, positions: Positions):
        self._rows, self._seed, self._batch_size = rows, seed, batch_size
        self._positions = np.arange(batch_size)[positions]

    def train(self, step: int) -> Batch:
        seed, num_rows = self._seed, self._rows.num_rows
        return self._rows.make_batch(seed, [row_of(seed, num_rows, j) for j in self._local(step)])

    def evaluate(self, step: int) -> Batch:
        num_rows = self._rows.num_rows
        examples = [(0, i) if i < num_rows else None for i in self._local(step)]
        return self._rows.make_batch(self._seed, examples)

    def _local(self, step: int) -> list[int]:
        return (step * self._batch_size + self._positions).tolist()


def train_batches(
    config: DataConfig,
    seed: int,
    batch_size: int,
    positions: Positions,
    first_step: int,
    num_steps: int,
) -> grain.DatasetIterator[Batch]:
    """Yields this process's part of the batches of the steps from `first_step` on.

    Batches continue across epoch boundaries. The global batch, assembled from its parts, is the
    same for any number of processes.

    Args:
      config: the location of the rows, and how to make examples from them.
      seed: the run's seed, 0 <= seed < 2**63.
      batch_size: rows in the global batch.
      positions: the rows of the global batch that this process needs: a slice or indices.
      first_step: the first step, counted from 0.
      num_steps: the number of steps.

    Returns:
      An iterator of `Rows.make_batch` results; its `close()` ends reader threads and processes.

    Raises:
      FileNotFoundError, ValueError: for the same reasons as `Rows`.
    """
    steps = _Steps(Rows(config, "train"), seed, batch_size, positions)
    numbers = grain.MapDataset.range(first_step, first_step + num_steps)
    ahead = WORKER_READ_AHEAD if config.num_workers else READ_AHEAD
    options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
    batches = numbers.map(steps.train).to_iter_dataset(options)
    if config.num_workers:
        # Grain reads its own absl flags, which a command without absl.app never parses.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(
                num_workers=config.num_workers, per_worker_buffer_size=WORKER_READ_AHEAD
            )
        )
    return iter(batches)


def eval_batches(
    config: DataConfig, batch_size: int, positions: Positions, seed: int = EVAL_SEED
) -> grain.DatasetIterator[Batch]:
    """Yields this process's part of the validation split, each row once, in stored order.

    Pairs and masks are those of epoch 0 under a separate seed, so they are the same at every
    evaluation of every run. Empty rows without weights fill the last batch.

    Arguments, result and errors are the same as for `train_batches`.
    """
    rows = Rows(config, "validation")
    steps = _Steps(rows, seed, batch_size, positions)
    options = grain.ReadOptions(num_threads=READ_AHEAD, prefetch_buffer_size=READ_AHEAD)
    numbers = grain.MapDataset.range(-(-rows.num_rows // batch_size))
    return iter(numbers.map(steps.evaluate).to_iter_dataset(options))
