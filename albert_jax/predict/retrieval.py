"""An index of documents' passages, and search in it.

An index is a folder:

  documents.txt   the texts of all documents, in UTF-8
  names.txt       their names
  documents.npy   where each document's text and name are in these two files
  passages.npy    of each passage its document, characters in that document, and bytes
  bm25/           the scores of each word in each passage, by the library bm25s
  index.json      settings, counts, versions and sizes of files; written last
"""

import logging
import unicodedata
from array import array
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.data.files import new_folder, read_object, replace_json
from albert_jax.data.scripts import UNSPACED
from albert_jax.prepare.corpus import Corpus, Document
from albert_jax.prepare.documents import content_digest
from albert_jax.prepare.passages import passages_of, text_of
from albert_jax.prepare.sentences import AUTO, check_language

RECORD = "index.json"
_FORMAT = 1  # of the files, and of how words are found
_PASSAGE = np.dtype([(name, "<i8") for name in ("document", "begin", "end", "from", "to")])
_DOCUMENT = np.dtype([(name, "<i8") for name in ("from", "to", "name_from", "name_to")])
# Marks on letters that `\w` leaves out: accents, points, and all of Indic scripts but their full
# stops. Zero-width joiners are within words too.
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0900-\u0963\u0966-\u0dff\u200c\u200d"
)
# A word, or a letter of a script without spaces.
_WORD = rf"(?:[^\W{UNSPACED}]+|[{_MARKS}]+)+|(?=\w)[{UNSPACED}]"


class Passage(NamedTuple):
    """A passage that was found.

    Attributes:
      text: the passage.
      document: the document's name: its title or id, or else its file and number from 0 in it.
      start: the passage's first character in `Index.document_text(number)`.
      end: the character after its last.
      score: of BM25; comparable between passages for the same question only.
      number: the document's number, from 0.
    """

    text: str
    document: str
    start: int
    end: int
    score: float
    number: int


def build_index(
    sources: Sequence[str | PathLike],
    output: Path,
    passage_words: int = 100,
    language: str = AUTO,
    stop_words: str | None = None,
    file_format: str = "auto",
    text_field: str = "text",
    data_dir: str | None = None,
) -> dict[str, int]:
    """Cuts documents into passages and indexes these, atomically.

    A document's text is its paragraphs as `prepare` reads them, one a line. Of documents with the
    same text, the first is kept.

    Args:
      sources: files, folders, globs, `tfds:NAME`, as `Corpus` takes them.
      output: the folder to create.
      passage_words: the largest number of words in a passage.
      language: the code of the language whose rules split sentences, or "auto".
      stop_words: the code of a language of bm25s whose most frequent words are not indexed; by
        default all words are.
      file_format: one of `formats.FORMATS`.
      text_field: the JSON or TFDS field that holds the text.
      data_dir: the folder of TFDS data sets.

    Returns:
      The numbers of documents, duplicates and passages.

    Raises:
      FileNotFoundError: if a source does not exist.
      ValueError: if a source or a setting is not valid, there is no text, `output` exists, or
        bm25s is not installed.
    """
    if passage_words < 1:
        raise ValueError(f"passage_words={passage_words} must be at least 1; 100 is usual")
    check_language(language)
    bm25s = _load_bm25s()
    _check_stop_words(stop_words)
    corpus = Corpus(sources, file_format, text_field, data_dir)
    with new_folder(output) as folder:
        writer = _Writer(folder)
        texts = writer.texts(corpus, passage_words, language)
        words = _words_of(texts, stop_words)
        if not words.vocab:
            raise corpus.no_text()
        retriever = bm25s.BM25()
        retriever.index(words, show_progress=False)
        retriever.save(folder / "bm25", show_progress=False)
        settings = {
            "passage_words": passage_words,
            "language": language,
            "stop_words": stop_words,
        }
        _write_record(folder, writer.counts, settings)
    return writer.counts


def _write_record(folder: Path, counts: Mapping[str, int], settings: Mapping[str, Any]) -> None:
    """Writes what says that an index is complete, and of what size its files are."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    record = {
        "format": _FORMAT,
        "counts": counts,
        "settings": settings,
        "versions": {"bm25s": metadata.version("bm25s")},
        "files": {str(f.relative_to(folder)): f.stat().st_size for f in files},
    }
    replace_json(folder / RECORD, record)


class Index:
    """The passages of a collection, to be searched.

    Files are mapped into memory, so that only what is needed is read.

    Attributes:
      counts: the numbers of documents, duplicates and passages.
    """

    def __init__(self, folder: Path):
        """Opens an index.

        Raises:
          FileNotFoundError: if there is none, or a file is missing.
          ValueError: if it is damaged, or bm25s is not installed.
        """
        self.counts = _check(folder)
        bm25s = _load_bm25s()
        try:
            self._passages_P = np.load(folder / "passages.npy", mmap_mode="r")
            self._documents_D = np.load(folder / "documents.npy", mmap_mode="r")
            self._texts = np.memmap(folder / "documents.txt", np.uint8, "r")
            self._names = np.memmap(folder / "names.txt", np.uint8, "r")
            self._retriever = bm25s.BM25.load(folder / "bm25", mmap=True, show_progress=False)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{folder}: damaged index ({error}); build it again") from None

    def search(self, question: str, top_k: int = 10) -> list[Passage]:
        """Returns the passages that share words with a question, the best first.

        Raises:
          ValueError: if the question is not a string or is blank, or `top_k` is less than 1.
        """
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"the question must be a string, not blank: {question!r}")
        if top_k < 1:
            raise ValueError(f"top_k={top_k} must be at least 1")
        words = _words_of([question])
        if not words.vocab:
            return []
        scores_P = self._retriever.get_scores(list(words.vocab))
        top_k = min(top_k, len(scores_P))
        best = np.argpartition(-scores_P, top_k - 1)[:top_k]
        best = best[np.lexsort((best, -scores_P[best]))]
        return [self._passage(i, float(scores_P[i])) for i in best if scores_P[i] > 0]

    def document_text(self, number: int) -> str:
        """Returns the text of the document of this number, in which passages have their places."""
        row = self._documents_D[number]
        return _decoded(self._texts, row["from"], row["to"])

    def _passage(self, i: int, score: float) -> Passage:
        row = self._passages_P[i]
        document = self._documents_D[row["document"]]
        text = _decoded(self._texts, row["from"], row["to"])
        name = _decoded(self._names, document["name_from"], document["name_to"])
        place = int(row["begin"]), int(row["end"])
        return Passage(text, name, *place, score, int(row["document"]))


class _Writer:
    """Writes documents and their passages; what it counts is complete at the end.

    Attributes:
      counts: the numbers of documents, duplicates and passages.
    """

    def __init__(self, folder: Path):
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


def _words_of(texts: Sequence[str] | Iterator[str], stop_words: str | None = None) -> Any:
    """Returns the words of each text as bm25s has them: numbers, and the vocabulary."""
    normal = (t if t.isascii() else unicodedata.normalize("NFKC", t) for t in texts)
    tokenize = _load_bm25s().tokenize
    return tokenize(normal, token_pattern=_WORD, stopwords=stop_words, show_progress=False)  # pyright: ignore


def _check_stop_words(stop_words: str | None) -> None:
    try:
        _words_of([], stop_words)
    except ValueError:
        raise ValueError(
            f"stop_words {stop_words!r}: bm25s has no such list; give a code such as en or de"
        ) from None


def _load_bm25s() -> Any:
    # On first use: not every installation has it, and it starts JAX's backend.
    try:
        import bm25s
    except ImportError:
        raise ValueError(
            "collections of documents need bm25s: pip install 'albert_jax[retrieval]'"
        ) from None
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # itself it sets DEBUG
    return bm25s


def _check(folder: Path) -> dict[str, int]:
    """Returns the counts of an index, after checking that its files are there and whole."""
    if not (folder / RECORD).is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} is not an index: it has no {RECORD}; build one with albert-jax "
            "predict.index"
        )
    record = read_object(folder / RECORD)
    if record.get("format") != _FORMAT:
        raise ValueError(
            f"{folder / RECORD}: format {record.get('format')!r} is not {_FORMAT}, which this "
            "version reads; build the index again"
        )
    counts, files = record.get("counts"), record.get("files")
    if not isinstance(counts, dict) or not isinstance(files, dict):
        raise ValueError(f"{folder / RECORD}: no counts and files in it; build the index again")
    for name, size in files.items():
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; build the index again")
        if file.stat().st_size != size:
            raise ValueError(
                f"{file}: has {file.stat().st_size} bytes, not {size}; build the index again"
            )
    return counts


def _decoded(data_b: np.ndarray, begin: int, end: int) -> str:
    return data_b[begin:end].tobytes().decode()
