"""Documents and their passages on disk.

documents.txt   the texts of all documents, in UTF-8
names.txt       their names
documents.npy   where each document's text and name are in these two files
passages.npy    of each passage its document, characters in that document, and bytes
"""

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_jax.prepare.corpus import Corpus, Document
from albert_jax.prepare.documents import content_digest
from albert_jax.prepare.passages import passages_of, text_of

_PASSAGE = np.dtype([(name, "<i8") for name in ("document", "begin", "end", "from", "to")])
_DOCUMENT = np.dtype([(name, "<i8") for name in ("from", "to", "name_from", "name_to")])


class Passage(NamedTuple):
    """A passage that was found.

    Attributes:
      text: the passage.
      document: the document's name: its title or id, or else its file and number from 0 in it.
      start: the passage's first character in `Index.document_text(number)`.
      end: the character after its last.
      score: of the search; comparable between passages for the same question only.
      number: the document's number, from 0.
    """

    text: str
    document: str
    start: int
    end: int
    score: float
    number: int


class Documents:
    """What `DocumentWriter` wrote, mapped into memory, so that only what is needed is read."""

    def __init__(self, folder: Path):
        """Opens the files.

        Raises:
          ValueError: if one is damaged.
        """
        self._passages_P = np.load(folder / "passages.npy", mmap_mode="r")
        self._documents_D = np.load(folder / "documents.npy", mmap_mode="r")
        self._texts = np.memmap(folder / "documents.txt", np.uint8, "r")
        self._names = np.memmap(folder / "names.txt", np.uint8, "r")

    def text(self, number: int) -> str:
        """Returns the text of the document of this number, in which passages have their places."""
        row = self._documents_D[number]
        return _decoded(self._texts, row["from"], row["to"])

    def passage(self, i: int, score: float) -> Passage:
        """Returns the passage of this number, with its score in a search."""
        row = self._passages_P[i]
        document = self._documents_D[row["document"]]
        text = _decoded(self._texts, row["from"], row["to"])
        name = _decoded(self._names, document["name_from"], document["name_to"])
        place = int(row["begin"]), int(row["end"])
        return Passage(text, name, *place, score, int(row["document"]))


def _decoded(data_b: np.ndarray, begin: int, end: int) -> str:
    """Returns the text in these bytes of UTF-8."""
    return data_b[begin:end].tobytes().decode()


class DocumentWriter:
    """Writes documents and their passages; what it counts is complete at the end.

    Attributes:
      counts: the numbers of documents, duplicates and passages.
    """

    def __init__(self, folder: Path):
        """Writes nothing yet."""
        self._folder = folder
        self._passages, self._documents = array("q"), array("q")
        self._seen: set[int] = set()
        self.counts = {"documents": 0, "duplicates": 0, "passages": 0}

    def texts(self, corpus: Corpus, most_words: int, language: str) -> Iterator[str]:
        """Yields the text of every passage, and writes all files at the end."""
        in_source = [0] * len(corpus.sources)
        with (
            open(self._folder / "documents.txt", "wb") as texts,
            open(self._folder / "names.txt", "wb") as names,
        ):
            for document in corpus:
                name = _name_of(corpus, document, in_source[document.source])
                in_source[document.source] += 1
                digest = content_digest(document)
                if digest in self._seen:
                    self.counts["duplicates"] += 1
                    continue
                self._seen.add(digest)
                places = texts.tell(), names.tell()
                text = text_of(document)
                texts.write(text.encode())
                names.write(name.encode(errors="replace"))  # of an odd file name
                self._documents.extend((places[0], texts.tell(), places[1], names.tell()))
                yield from self._cut(document, text, places[0], most_words, language)
                self.counts["documents"] += 1
        for name, values, kind in (
            ("passages", self._passages, _PASSAGE),
            ("documents", self._documents, _DOCUMENT),
        ):
            np.save(self._folder / f"{name}.npy", np.frombuffer(values, "=i8").view(kind))

    def _cut(
        self, document: Document, text: str, at: int, most_words: int, language: str
    ) -> Iterator[str]:
        """Yields the passages of a document whose text begins at this byte."""
        before = 0
        for begin, end in passages_of(document, most_words, language):
            at += len(text[before:begin].encode())
            before = begin
            passage = text[begin:end]
            to = at + len(passage.encode())
            self._passages.extend((self.counts["documents"], begin, end, at, to))
            self.counts["passages"] += 1
            yield passage


def _name_of(corpus: Corpus, document: Document, number: int) -> str:
    """Returns the name of a document, the one of this number from 0 in its source."""
    source = corpus.sources[document.source]
    is_whole = source.format == "text" and number == 0
    return source.title or (source.path if is_whole else f"{source.path}#{number}")
