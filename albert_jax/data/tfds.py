"""Reads the splits of a TFDS data set as plain records, by random access, without TensorFlow."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config.schema import TFDS_PREFIX

WINDOW = 256  # records fetched together


class TfdsSplits:
    """A TFDS data set.

    Attributes:
      source: its name, for messages.
      features: its features by name.
      splits: the names of its splits in this package, in order.
      notes: what was skipped, one line each.
    """

    def __init__(self, source: str, data_dir: str | None):
        """Opens the data set, preparing it first if it does not exist.

        Args:
          source: `tfds:NAME`.
          data_dir: the folder of the data sets; TFDS's default if None.

        Raises:
          FileNotFoundError: if TFDS has no such data set.
          ValueError: if it has no random access, or no train, validation or test split.
        """
        import tensorflow_datasets as tfds  # takes a second or two, and few inputs need it

        self.source, self._tfds = source, tfds
        with tfds_errors(source, f"{source}: no random access", data_dir):
            builder = open_tfds(source, data_dir)
            self.features: dict[str, Any] = dict((builder.info.features or {}).items())
            theirs = {_our_name(split): split for split in builder.info.splits}
            self._data = {
                ours: builder.as_data_source(split=theirs[ours])
                for ours in in_order(filter(None, theirs))
            }
        self.splits = list(self._data)
        if not self.splits:
            raise ValueError(f"{source}: no train, validation or test split; use another set")
        others = [split for split in builder.info.splits if _our_name(split) is None]
        self.notes = [f"{source}: skipped splits: {', '.join(others)}"] if others else []

    def is_text(self, name: str) -> bool:
        """Returns whether this feature holds text."""
        return isinstance(self.features.get(name), self._tfds.features.Text)

    def class_names(self, name: str) -> list[str] | None:
        """Returns the names of the classes that this feature (or sequence) holds, or None."""
        feature: Any = self.features.get(name)
        feature = getattr(feature, "feature", feature)
        return feature.names if isinstance(feature, self._tfds.features.ClassLabel) else None

    def need(self, *names: str) -> None:
        """Raises ValueError if a feature does not exist."""
        for name in names:
            if name not in self.features:
                raise ValueError(
                    f"{self.source}: no feature {name!r} (has: {', '.join(self.features)}); "
                    "is this the task's data set?"
                )

    def records(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields each record's place, and the record with text as str and arrays as lists.

        Raises:
          ValueError: if a record cannot be decoded, or a text in it is not UTF-8.
        """
        data = self._data[split]
        for first in range(0, len(data), WINDOW):
            indices = range(first, min(first + WINDOW, len(data)))
            try:
                window = data.__getitems__(indices)
            except (ValueError, KeyError, AttributeError) as error:
                raise ValueError(
                    f"{self.source} {split}:{first}: this record or one of the next {WINDOW - 1} "
                    f"does not have the set's features ({error}); prepare the set again"
                ) from None
            for i, record in zip(indices, window, strict=True):
                where = f"{self.source} {split}:{i}"
                try:
                    plain = _plain(record)
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{where}: invalid UTF-8 at byte {error.start}; prepare the set again"
                    ) from None
                yield where, plain


def _our_name(split: str) -> str | None:
    """Returns "validation" for "dev", "test_matched" for itself, None for "unsupervised"."""
    word, _, rest = split.partition("_")
    # Files are named after splits.
    is_name = word in WORDS and re.fullmatch(r"[\w.-]*", rest)
    return f"{WORDS[word]}{'_' * bool(rest)}{rest}" if is_name else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return [_plain(inner) for inner in value]
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode()
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value


def open_tfds(source: str, data_dir: str | None) -> Any:
    """Returns the builder of `tfds:NAME`; prepares the data set first if it is missing."""
    import tensorflow_datasets as tfds

    name = source.removeprefix(TFDS_PREFIX)
    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        # The code of a set names its default config, and TFDS cannot import that code without
        # TensorFlow. A set that is prepared with a single config needs no default.
        folder = Path(data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"))
        configs = [path.name for path in (folder.expanduser() / name).glob("*") if path.is_dir()]
        if len(configs) != 1 or "/" in name:
            raise
        builder = tfds.builder(f"{name}/{configs[0]}", data_dir=data_dir)
    if not builder.info.splits:
        builder.download_and_prepare(file_format="array_record")
    return builder


@contextlib.contextmanager
def tfds_errors(where: str, problem: str, data_dir: str | None) -> Iterator[None]:
    """Adds the input's name and a remedy to TFDS's errors in opening a data set."""
    import tensorflow_datasets as tfds

    try:
        yield
    except tfds.core.DatasetNotFoundError:
        raise FileNotFoundError(
            f"{where}: TFDS has no such data set, nor has the data_dir {data_dir}"
        ) from None
    except (NotImplementedError, ValueError, KeyError) as error:
        raise ValueError(
            f"{problem} ({(str(error).strip() or repr(error)).splitlines()[0]}); "
            "prepare the data set with file_format=array_record"
        ) from None


WORDS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def in_order(splits: Iterable[str]) -> list[str]:
    """Returns names of splits: those of train first, then validation, then test."""
    return sorted(
        splits, key=lambda s: (("train", "validation", "test").index(s.split("_")[0]), s)
    )
