"""A corpus: documents from files, TFDS data sets and Python's documentation, as one stream.

A corpus is a list of sources in a fixed order. Each source streams its documents, so memory use
does not grow with the corpus.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from albert_jax.config.schema import TFDS_PREFIX
from albert_jax.prepare.formats import FORMATS
from albert_jax.prepare.python_docs import PYTHON_DOCS, PythonDocs
from albert_jax.prepare.sources import FileSource, Source, TfdsSource


class Document(NamedTuple):
    """One document.

    Attributes:
      source: index into `Corpus.sources`.
      paragraphs: the text, one string per paragraph, none of them blank.
      is_sentences: whether each paragraph is a single sentence that must not be split.
    """

    source: int
    paragraphs: list[str]
    is_sentences: bool

    @property
    def chars(self) -> int:
        """The length of the text in characters."""
        return sum(map(len, self.paragraphs))


def read_documents(index: int, source: Source) -> Iterator[Document]:
    """Yields the documents of the source with this index.

    Raises:
      ValueError: if the source is not valid in its format.
    """
    for paragraphs in source.documents():
        yield Document(index, paragraphs, source.format == "sentences")


class Corpus:
    """All inputs as one stream of documents; can be iterated repeatedly.

    Attributes:
      sources: the inputs, with folders and globs replaced by their files.
      bytes_total: the total size of all sources.
    """

    def __init__(
        self,
        inputs: Sequence[str | os.PathLike],
        file_format: str = "auto",
        text_field: str = "text",
        data_dir: str | None = None,
        num_workers: int = 1,
    ):
        """Finds the sources; no document is read yet.

        Args:
          inputs: files, folders (all files below them except hidden ones), globs, `tfds:NAME`,
            `python-docs`.
          file_format: one of `FORMATS`, for files; `auto` decides for each file.
          text_field: the JSON or TFDS field that holds the text.
          data_dir: the folder of TFDS data sets; TFDS's default if None.
          num_workers: processes that may parse Python files.

        Raises:
          FileNotFoundError: if an input does not exist.
          ValueError: if a glob or folder matches no file, or a format is unknown.
        """
        if file_format not in FORMATS:
            raise ValueError(f"format {file_format!r}: must be one of {', '.join(FORMATS)}")
        if not inputs:
            raise ValueError("no input given; pass a file, folder, glob or tfds:NAME")
        self.sources: list[Source] = []
        self._first_sources: list[int] = []
        for name in [os.path.expanduser(i) for i in inputs]:
            self._first_sources.append(len(self.sources))
            if name.startswith(TFDS_PREFIX):
                self.sources.append(TfdsSource(name, text_field, data_dir))
            elif name == PYTHON_DOCS:
                self.sources.append(PythonDocs(num_workers))
            else:
                files = _find_files(name)
                self.sources += [FileSource(f, file_format, text_field) for f in files]
        self.bytes_total = sum(s.bytes for s in self.sources)

    def first_source(self, number: int) -> int:
        """Returns the index of the first source of an input, given the input's number from 0."""
        return self._first_sources[number]

    @property
    def bytes_read(self) -> int:
        """The number of bytes read so far in the current pass."""
        return sum(s.position for s in self.sources)

    def __iter__(self) -> Iterator[Document]:
        """Yields every document, source by source.

        Raises:
          ValueError: if a source is not valid in its format, or there are no documents at all.
        """
        empty = True
        for source in self.sources:
            source.position = 0
        for index, source in enumerate(self.sources):
            for document in read_documents(index, source):
                empty = False
                yield document
        if empty:
            raise self.no_text()

    def no_text(self) -> ValueError:
        """Returns the error for a corpus without any document."""
        names = ", ".join(s.path for s in self.sources[:3])
        return ValueError(f"input {names}: contains no text; is --format correct?")


def _find_files(name: str) -> list[str]:
    """Returns the files that an input names, sorted."""
    if os.path.isfile(name):
        return [name]
    if os.path.isdir(name):
        found = sorted(_files_below(name))
        if not found:
            raise ValueError(f"input {name}: this folder contains no files")
        for file in found:
            if not os.path.isfile(file):
                os.stat(file)  # raises a clear error for a broken or circular link
                raise ValueError(f"input {file}: is neither a file nor a folder; remove it")
        return found
    if glob.has_magic(name):
        # `**` follows links, even circular ones, so duplicates are removed.
        paths = sorted(glob.glob(name, recursive=True), reverse=True)
        found = {os.path.realpath(f): f for path in paths for f in _find_files(path)}
        if not found:
            raise FileNotFoundError(f"input {name}: matches no file")
        return sorted(found.values())
    if os.path.lexists(name):
        os.stat(name)
        raise ValueError(f"input {name}: is neither a file nor a folder; write it to a file first")
    raise FileNotFoundError(f"input {name}: no such file or folder")


def _files_below(folder: str) -> Iterator[str]:
    """Yields the files below a folder, hidden ones left out; links to folders are followed."""

    def refuse(error: OSError) -> None:
        raise error

    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(parent)
        # Visits each folder once, under its first name, because links may be circular.
        folders[:] = [] if real in seen else sorted(f for f in folders if not f.startswith("."))
        if real not in seen:
            yield from (os.path.join(parent, f) for f in files if not f.startswith("."))
        seen.add(real)
