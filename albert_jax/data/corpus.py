"""Documents from files, TFDS data sets and Python's own documentation, as one stream.

A corpus is a list of sources in a fixed order; each source streams documents, so memory does not
grow with the corpus.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from albert_jax.data.python_docs import PYTHON_DOCS, PythonDocs
from albert_jax.data.readers import FORMATS
from albert_jax.data.sources import TFDS_PREFIX, FileSource, Source, TfdsSource


class Document(NamedTuple):
    """One document.

    Attributes:
      source: index into `Corpus.sources`.
      paragraphs: the text, one string a paragraph, none of them blank.
      is_sentences: whether each paragraph is one sentence and must be kept as it is.
    """

    source: int
    paragraphs: list[str]
    is_sentences: bool

    @property
    def chars(self) -> int:
        """How long the text is."""
        return sum(map(len, self.paragraphs))


def documents_of(index: int, source: Source) -> Iterator[Document]:
    """Yields the documents of the source with this index.

    Raises:
      ValueError: the source cannot be read as its format says.
    """
    for paragraphs in source.documents():
        yield Document(index, paragraphs, source.format == "sentences")


class Corpus:
    """All inputs as one stream of documents; may be iterated again and again.

    Attributes:
      sources: the inputs, folders and globs replaced by their files.
      bytes_total: the size of all sources.
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
          inputs: files, folders (all files below, hidden ones left out), globs, `tfds:NAME`,
            `python-docs`.
          file_format: one of `FORMATS`, for files; `auto` settles on one for each.
          text_field: the JSON or TFDS field that holds the text.
          data_dir: where TFDS data sets lie; TFDS's own default if None.
          num_workers: processes that may parse Python files.

        Raises:
          FileNotFoundError: an input does not exist.
          ValueError: a glob or folder holds nothing, or a format is unknown.
        """
        if file_format not in FORMATS:
            raise ValueError(f"format {file_format!r}: must be one of {', '.join(FORMATS)}")
        if not inputs:
            raise ValueError("input: none given; pass a file, folder, glob or tfds:NAME")
        self.sources: list[Source] = []
        for name in [os.fspath(i) for i in inputs]:
            if name.startswith(TFDS_PREFIX):
                self.sources.append(TfdsSource(name, text_field, data_dir))
            elif name == PYTHON_DOCS:
                self.sources.append(PythonDocs(num_workers))
            else:
                files = _find_files(name)
                self.sources += [FileSource(f, file_format, text_field) for f in files]
        self.bytes_total = sum(s.bytes for s in self.sources)

    @property
    def bytes_read(self) -> int:
        """How far the running pass has come."""
        return sum(s.position for s in self.sources)

    def __iter__(self) -> Iterator[Document]:
        """Yields every document, source after source.

        Raises:
          ValueError: a source cannot be read as its format says, or there is no document at all.
        """
        empty = True
        for source in self.sources:
            source.position = 0
        for index, source in enumerate(self.sources):
            for document in documents_of(index, source):
                empty = False
                yield document
        if empty:
            raise self.no_text()

    def no_text(self) -> ValueError:
        """Returns the error for a corpus without any document."""
        names = ", ".join(s.path for s in self.sources[:3])
        return ValueError(f"input {names}: no text in it; is --format right?")


def _find_files(name: str) -> list[str]:
    """Returns the files that an input names, sorted."""
    if os.path.isfile(name):
        return [name]
    if os.path.isdir(name):
        found = [
            os.path.join(folder, file)
            for folder, _, files in os.walk(name)
            for file in files
            if "/." not in f"/{os.path.relpath(os.path.join(folder, file), name)}"
        ]
        if not found:
            raise ValueError(f"input {name}: no file in this folder")
        return sorted(found)
    if glob.has_magic(name):
        found = [f for path in glob.glob(name, recursive=True) for f in _find_files(path)]
        if not found:
            raise FileNotFoundError(f"input {name}: matches no file")
        return sorted(set(found))
    raise FileNotFoundError(f"input {name}: no such file or folder")
