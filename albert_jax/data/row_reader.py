"""Reader of the output of `prepare`: the manifest, and rows by number."""

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf.json_format import ParseError
from tensorflow_datasets.proto import tf_example_pb2

from albert_jax.config import DataConfig
from albert_jax.data import sentence_pairs
from albert_jax.data.files import read_object
from albert_jax.data.row_format import FORMAT_VERSION

# The manifest's keys that are needed to read rows and train on them.
_NEEDED = ("format_version", "seq_len", "packing", "max_chunks", "vocab_size", "rows",
           "tokenizer_sha256", "unigram_entropy", "fingerprint")  # fmt: skip


def read_manifest(config: DataConfig) -> dict[str, Any]:
    """Reads the description of prepared rows and checks that it fits the configuration.

    Raises:
      FileNotFoundError: if there is no such folder, or it has no prepared rows.
      ValueError: if the rows were prepared with other settings.
    """
    path = Path(config.path)
    remedy = "prepare it with `python -m albert_jax.prepare --output`"
    if not config.path or not path.is_dir():
        raise FileNotFoundError(f"data.path {config.path!r}: no such folder; {remedy}")
    if not (path / "manifest.json").is_file():
        raise FileNotFoundError(f"data.path {config.path!r}: no manifest.json in it; {remedy}")
    manifest = read_object(path / "manifest.json")
    missing = [name for name in _NEEDED if name not in manifest]
    if missing:
        raise ValueError(
            f"{path / 'manifest.json'}: missing {', '.join(missing)}; prepare the data again"
        )
    if manifest["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"data.path {config.path!r}: format_version is {manifest['format_version']}, but "
            f"this version reads {FORMAT_VERSION}; prepare the data again"
        )
    for name in ("seq_len", "packing"):
        asked, found = getattr(config, name), manifest[name]
        if asked != found:
            raise ValueError(
                f"data.{name} {asked}: the rows in {config.path!r} were prepared with {name} "
                f"{found}; set data.{name}={found} or prepare the data with {name} {asked}"
            )
    return manifest


class DamagedRowsError(ValueError):
    """A file of rows differs from what was written."""

    def __init__(self, path: str, reason: object):
        """Names the file; `reason` is what is wrong with it."""
        self._arguments = path, str(reason)
        super().__init__(
            f"{path} is damaged: {' '.join(str(reason).split())}; restore it from a copy, or "
            "prepare the data again"
        )

    def __reduce__(self) -> tuple:
        return type(self), self._arguments  # from a reader process


class StoredRows:
    """A TFDS data source of rows, decoded in a quarter of TFDS's time; can be pickled.

    ArrayRecord checks what is read; see `DamagedRowsError`.
    """

    def __init__(self, records: Any, shards: Sequence[tuple[str, int]], dtypes: dict[str, Any]):
        """Wraps the records of files, given with the number of records of each.

        `dtypes` names the arrays of a row, see `row_format.row_dtypes`.
        """
        self._records, self._dtypes = records, dtypes
        self._paths = [path for path, _ in shards]
        self._ends = list(itertools.accumulate(length for _, length in shards))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, row: int) -> sentence_pairs.StoredRow:
        try:
            record = self._records[row]
        except RuntimeError as error:
            path = self._paths[bisect.bisect_right(self._ends, row)]
            raise DamagedRowsError(path, error) from None
        example = tf_example_pb2.Example.FromString(record)  # pyright: ignore
        features = example.features.feature
        found = {
            name: np.frombuffer(features[name].bytes_list.value[0], dtype)
            for name, dtype in self._dtypes.items()
        }
        if "word_starts" in found:
            bits = np.unpackbits(
                np.asarray(found["word_starts"], np.uint8), count=len(found["pieces"])
            )
            found["word_starts"] = bits.astype(bool)
        return found


def open_rows(path: str | Path, split: str) -> StoredRows:
    """Opens the rows of a split ("train" or "validation") for random access.

    Raises:
      FileNotFoundError: if there is no TFDS data set in `path`.
      DamagedRowsError: if one of its files is missing or incomplete.
      ValueError: if it is damaged.
    """
    if not (Path(path) / "dataset_info.json").is_file():
        raise FileNotFoundError(
            f"data.path {str(path)!r}: contains no TFDS data set; prepare the data again"
        )
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    try:
        builder = tfds.builder_from_directory(path)
        source = builder.as_data_source(split, deserialize_method=raw)  # pyright: ignore
    except (ParseError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"data.path {str(path)!r}: the {split} rows cannot be opened: {reason}; "
            "prepare the data again"
        ) from None
    info = builder.info.splits[split]
    shards = list(zip(map(str, info.filepaths), info.shard_lengths, strict=True))
    for file, length in shards:
        _check_shard(file, length)
    tensors: Any = builder.info.features
    dtypes = {name: tensor.np_dtype for name, tensor in tensors.items()}
    return StoredRows(source, shards, dtypes)


def _check_shard(path: str, length: int) -> None:
    """Reads a file's record index, which is at its end, and checks the number of records."""
    try:
        reader = ArrayRecordReader(path)
        found = reader.num_records()
        reader.close()
    except RuntimeError as error:
        raise DamagedRowsError(path, error) from None
    if found != length:
        raise DamagedRowsError(path, f"it holds {found} rows, but dataset_info.json says {length}")
