"""Writes rows to disk as a TFDS data set on ArrayRecord."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from albert_jax.data.row_format import FORMAT_VERSION
from albert_jax.prepare.row_builder import Row

DATASET_NAME = "albert_rows"
ROWS_PER_SHARD = 100_000  # about 100 MB at 512 slots


def features(dtypes: Mapping[str, type]) -> Any:
    """Returns the TFDS features of a row, given its arrays' types from `row_dtypes`."""

    def integers(dtype: type) -> Any:
        return tfds.features.Tensor(
            shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES
        )

    return tfds.features.FeaturesDict({name: integers(t) for name, t in dtypes.items()})


def serialize(row: Row) -> bytes:
    """Returns a row in TFDS's storage format; equal rows give equal bytes.

    `features(...).serialize_example` gives an equivalent record, but its order of the four entries
    differs from run to run, and it takes ten times as long.
    """
    example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
    for name, values in row.items():
        example.features.feature[name].bytes_list.value.append(values.tobytes())
    return example.SerializeToString(deterministic=True)


def open_shard(path: Path) -> Any:
    """Returns a writer of records to an ArrayRecord file."""
    # TFDS's own choice for random access: one record per group.
    return ArrayRecordWriter(str(path), "group_size:1")


def shard_path(directory: Path, split: str, shard: int) -> Path:
    """Returns a shard's path until the number of shards is known (see `write_dataset_info`)."""
    return directory / f"{split}-{shard}.part"


@dataclass
class SplitShards:
    """The shards of a split.

    Attributes:
      split: its name.
      lengths: rows of each shard.
      num_bytes: the size of all records.
    """

    split: str
    lengths: list[int] = field(default_factory=list)
    num_bytes: int = 0


class RowRange(NamedTuple):
    """Rows [first, last) of a block."""

    block: int
    first: int
    last: int


def plan_shards(lengths: Iterable[int]) -> list[list[RowRange]]:
    """Returns which rows each shard of a split takes, given how many each block has."""
    plan: list[list[RowRange]] = []
    written = 0
    for block, rows in enumerate(lengths):
        first = 0
        while first < rows:
            if written == len(plan) * ROWS_PER_SHARD:
                plan.append([])
            last = min(rows, first + len(plan) * ROWS_PER_SHARD - written)
            plan[-1].append(RowRange(block, first, last))
            written += last - first
            first = last
    return plan


class SplitWriter:
    """Writes one split's rows to shards of `ROWS_PER_SHARD`."""

    def __init__(self, directory: Path, split: str):
        self._directory = directory
        self._writer: Any = None
        self._shards = SplitShards(split)

    def write(self, rows: Iterable[Row]) -> None:
        """Appends rows."""
        shards = self._shards
        for row in rows:
            if self._writer is None:
                path = shard_path(self._directory, shards.split, len(shards.lengths))
                self._writer = open_shard(path)
                shards.lengths.append(0)
            record = serialize(row)
            self._writer.write(record)
            shards.num_bytes += len(record)
            shards.lengths[-1] += 1
            if shards.lengths[-1] == ROWS_PER_SHARD:
                self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def finish(self) -> SplitShards:
        """Closes the last shard; returns what was written."""
        self._close_shard()
        return self._shards


def write_dataset_info(
    directory: Path, splits: Sequence[SplitShards], dtypes: Mapping[str, type]
) -> None:
    """Gives the shards their final names and writes what `tfds.builder_from_directory` reads."""
    identity = tfds.core.DatasetIdentity(
        name=DATASET_NAME,
        version=tfds.core.Version(f"{FORMAT_VERSION}.0.0"),
        data_dir=str(directory),
        module_name="albert_jax",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=features(dtypes),
        description="Rows of packed chunks of whole sentences, for pretraining ALBERT.",
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.SplitDict([_named(directory, shards) for shards in splits]))
    info.write_to_directory(directory)


def _named(directory: Path, shards: SplitShards) -> tfds.core.SplitInfo:
    """Gives the shards of a split their final names, and describes them to TFDS."""
    info = tfds.core.SplitInfo(
        name=shards.split,
        shard_lengths=shards.lengths,
        num_bytes=shards.num_bytes,
        filename_template=tfds.core.ShardedFileTemplate(
            data_dir=epath.Path(directory),
            dataset_name=DATASET_NAME,
            split=shards.split,
            filetype_suffix="array_record",
        ),
    )
    for shard, path in enumerate(info.filepaths):
        os.rename(shard_path(directory, shards.split, shard), path)
    return info
