"""Rows on disk: a TFDS data set on ArrayRecord."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

from albert_jax.data.rows import Row
from albert_jax.data.settings import FORMAT_VERSION

DATASET_NAME = "albert_rows"
ROWS_PER_SHARD = 100_000  # about 100 MB at 512 slots


def features() -> Any:
    """Returns the TFDS features of a row (see `RowBuilder`)."""

    def integers(dtype: type) -> Any:
        return tfds.features.Tensor(
            shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES
        )

    return tfds.features.FeaturesDict(
        {
            "pieces": integers(np.uint16),
            "sentence_lengths": integers(np.uint16),
            "chunk_sentences": integers(np.uint16),
            "chunk_documents": integers(np.uint64),
        }
    )


def serialize(row: Row) -> bytes:
    """Returns a row as TFDS stores it; equal rows give equal bytes.

    `features().serialize_example` gives the same record, but its order of the four entries differs
    from run to run, and it takes ten times as long.
    """
    example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
    for name, values in row.items():
        example.features.feature[name].bytes_list.value.append(values.tobytes())
    return example.SerializeToString(deterministic=True)


class SplitWriter:
    """Writes one split's rows to ArrayRecord files of `ROWS_PER_SHARD`."""

    def __init__(self, directory: Path, split: str):
        self._directory, self._split = directory, split
        self._writer: Any = None
        self._shard_lengths: list[int] = []
        self._num_bytes = 0

    def _path(self, shard: int) -> Path:
        return self._directory / f"{self._split}-{shard}.part"

    def write(self, rows: Iterable[Row]) -> None:
        """Appends rows."""
        for row in rows:
            if self._writer is None:
                path = self._path(len(self._shard_lengths))
                # TFDS's own choice for random access: one record a group.
                self._writer = ArrayRecordWriter(str(path), "group_size:1")
                self._shard_lengths.append(0)
            record = serialize(row)
            self._writer.write(record)
            self._num_bytes += len(record)
            self._shard_lengths[-1] += 1
            if self._shard_lengths[-1] == ROWS_PER_SHARD:
                self._close_shard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def finish(self) -> tfds.core.SplitInfo:
        """Gives the files their final names, now that their number is known; describes them."""
        self._close_shard()
        info = tfds.core.SplitInfo(
            name=self._split,
            shard_lengths=self._shard_lengths,
            num_bytes=self._num_bytes,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=epath.Path(self._directory),
                dataset_name=DATASET_NAME,
                split=self._split,
                filetype_suffix="array_record",
            ),
        )
        for shard, path in enumerate(info.filepaths):
            os.rename(self._path(shard), path)
        return info


def write_dataset_info(directory: Path, splits: Sequence[tfds.core.SplitInfo]) -> None:
    """Writes the TFDS metadata that `tfds.builder_from_directory` reads."""
    identity = tfds.core.DatasetIdentity(
        name=DATASET_NAME,
        version=tfds.core.Version(f"{FORMAT_VERSION}.0.0"),
        data_dir=str(directory),
        module_name="albert_jax",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=features(),
        description="Rows of packed chunks of whole sentences, for pretraining ALBERT.",
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(directory)
