"""Sources of documents: their interface, files, and TFDS data sets."""

import functools
import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from albert_jax.config.schema import TFDS_PREFIX
from albert_jax.data.files import file_sha256
from albert_jax.data.tfds import open_tfds, tfds_errors
from albert_jax.prepare.formats import format_of, read_items
from albert_jax.prepare.paragraphs import Items, paragraphs_of
from albert_jax.prepare.records import title_of

# A larger document is passed on in parts, so that memory stays bounded even for one huge file.
MAX_DOCUMENT_CHARS = 16 << 20


class Source(ABC):
    """One input: a file, a TFDS data set or Python's documentation.

    Attributes:
      path: its name in messages and in the manifest.
      format: how it is read; never "auto".
      bytes: its size.
      position: how many of these bytes have been read in the current pass.
      counts: kind -> number of items that could not be passed on unchanged.
      title: of the document that was passed on last; "" if the source does not give it one.
    """

    def __init__(self, path: str, file_format: str, size: int):
        self.path, self.format, self.bytes = path, file_format, size
        self.position = 0
        self.title = ""
        self.counts: Counter[str] = Counter()

    def entitle(self, title: str) -> None:
        """Sets the title of the document whose paragraphs come next."""
        self.title = title

    @functools.cached_property
    @abstractmethod
    def sha256(self) -> str:
        """The hex digest of the content (or of what determines it)."""

    @abstractmethod
    def items(self) -> Items:
        """Yields paragraphs, and None where a document ends; every call starts over."""

    def documents(self) -> Iterator[list[str]]:
        """Yields the paragraphs of each document that has any."""
        self.counts.clear()
        paragraphs: list[str] = []
        size = 0
        for item in chain(self.items(), [None]):
            if item:
                paragraphs.append(item)
                size += len(item)
            if paragraphs and (item is None or size > MAX_DOCUMENT_CHARS):
                yield paragraphs
                if item is not None:
                    self.counts["documents_cut"] += 1
                paragraphs, size = [], 0
        self.position = self.bytes


class FileSource(Source):
    """A text file, plain or compressed."""

    def __init__(self, path: str, file_format: str, text_field: str):
        known = format_of(path) if file_format == "auto" else file_format
        super().__init__(path, known, os.path.getsize(path))
        self._text_field = text_field

    @functools.cached_property
    def sha256(self) -> str:
        """The hex digest of the file."""
        return file_sha256(self.path)

    def items(self) -> Items:
        """Yields paragraphs, and None where a document ends."""
        with open(self.path, "rb") as raw:
            field = self._text_field
            for item in read_items(raw, self.path, self.format, field, self.entitle):
                if item is None:
                    self.position = raw.tell()
                yield item


class TfdsSource(Source):
    """The train split of a TFDS data set, read in order by random access."""

    WINDOW = 256  # records fetched together

    def __init__(self, path: str, text_field: str, data_dir: str | None):
        import tensorflow_datasets as tfds  # takes a second or two, and few inputs need it

        where = f"input {path}"
        with tfds_errors(where, f"{where}: no train split with random access", data_dir):
            builder = open_tfds(path, data_dir)
            self._data = builder.as_data_source(split="train")
        features = builder.info.features or {}
        if text_field not in features:
            raise ValueError(
                f"input {path}: no feature {text_field!r} (has: {', '.join(sorted(features))}); "
                "name it with --text_field"
            )
        if not isinstance(features[text_field], tfds.features.Text):
            raise ValueError(
                f"input {path}: feature {text_field!r} holds no text; name one with --text_field"
            )
        self._field = text_field
        info = builder.info.splits["train"]
        self._identity = f"{builder.info.full_name} {info.num_examples} {info.num_bytes}"
        super().__init__(f"{TFDS_PREFIX}{builder.info.full_name}", "tfds", info.num_bytes)

    @functools.cached_property
    def sha256(self) -> str:
        """The hex digest of name, version and size."""
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def items(self) -> Items:
        """Yields paragraphs, and None after each record."""
        for first in range(0, len(self._data), self.WINDOW):
            indices = range(first, min(first + self.WINDOW, len(self._data)))
            for i, record in zip(indices, self._data.__getitems__(indices), strict=True):
                text = record[self._field]
                try:
                    text = text if isinstance(text, str) else bytes(text).decode()
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"{self.path}: record {i}: invalid UTF-8 at byte {error.start}"
                    ) from None
                self.entitle(title_of(record, self._field))
                yield from paragraphs_of(text.splitlines())
                yield None
            self.position = self.bytes * (indices[-1] + 1) // len(self._data)
