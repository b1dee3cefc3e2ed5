"""Rows come back from disk as they were, through TFDS, over any number of files."""

from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from albert_jax.data.row_format import row_dtypes
from albert_jax.prepare import row_writer
from albert_jax.prepare.row_writer import SplitWriter, features, serialize, write_dataset_info

DTYPES = row_dtypes(np.uint16, has_words=False)
ROW = {
    "pieces": np.array([5, 6, 40_000], np.uint16),
    "sentence_lengths": np.array([1, 2], np.uint16),
    "chunk_sentences": np.array([1, 1], np.uint16),
    "chunk_documents": np.array([7, 2**63 + 1], np.uint64),
}


def assert_equal(row, expected):
    assert row.keys() == expected.keys()
    for name, values in row.items():
        assert values.dtype == expected[name].dtype
        assert np.array_equal(values, expected[name])


def test_serialize_is_what_tfds_writes():
    read = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
    assert read(serialize(ROW)) == read(features(DTYPES).serialize_example(ROW))
    assert serialize(ROW) == serialize(dict(reversed(ROW.items())))
    assert_equal(features(DTYPES).deserialize_example_np(serialize(ROW)), ROW)


@pytest.mark.parametrize("count", [1, 5, 6])
def test_rows_come_back_from_all_shards(tmp_path, monkeypatch, count):
    monkeypatch.setattr(row_writer, "ROWS_PER_SHARD", 3)
    rows = [ROW | {"pieces": np.array([i, i, i], np.uint16)} for i in range(count)]
    infos = []
    for split in ("train", "validation"):
        writer = SplitWriter(tmp_path, split)
        writer.write(rows[:2])
        writer.write(rows[2:])
        infos.append(writer.finish())
    write_dataset_info(tmp_path, infos, DTYPES)
    shards = -(-count // 3)
    assert len(list(tmp_path.glob(f"albert_rows-train.*-of-{shards:05d}"))) == shards
    assert not list(tmp_path.glob("*.part"))
    builder: Any = tfds.builder_from_directory(str(tmp_path))
    for split in ("train", "validation"):
        source = builder.as_data_source(split)
        assert len(source) == count
        for i, expected in enumerate(rows):
            assert_equal(source[i], expected)
