"""An index of documents' passages, and search in it.

An index is a folder with the files of `documents`, those of `bm25` or of `vectors`, and

  index.json   settings, counts, versions and sizes of files; written last
"""

import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.data.files import new_folder, read_object, replace_json
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.predict.load import load
from albert_jax.predict.retrieval.bm25 import Bm25, check_stop_words, load_bm25s, write_bm25
from albert_jax.predict.retrieval.documents import Documents, DocumentWriter, Passage
from albert_jax.predict.retrieval.vectors import Vectors, write_vectors
from albert_jax.prepare.corpus import Corpus
from albert_jax.prepare.sentences import AUTO, check_language

RECORD = "index.json"
_FORMAT = 2  # of the files, and of how words are found


def build_index(
    sources: Sequence[str | PathLike],
    output: str | PathLike,
    passage_words: int = 100,
    language: str = AUTO,
    stop_words: str | None = None,
    embedder: str | PathLike | None = None,
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
      embedder: a model as `load` takes it, whose vectors are indexed in place of words.
      file_format: one of `formats.FORMATS`.
      text_field: the JSON or TFDS field that holds the text.
      data_dir: the folder of TFDS data sets.

    Returns:
      The numbers of documents, duplicates and passages; with an embedder also of passages that
      were cut, because they have more tokens than it takes.

    Raises:
      FileNotFoundError: if a source or the embedder does not exist.
      ValueError: if a source or a setting is not valid, there is no text, `output` exists, or
        bm25s is not installed.
    """
    if passage_words < 1:
        raise ValueError(f"passage_words={passage_words} must be at least 1; 100 is usual")
    if isinstance(sources, str | PathLike):
        raise ValueError(f"sources={os.fspath(sources)!r} must be a list; put it in brackets")
    check_language(language)
    if embedder is None:
        check_stop_words(stop_words)
    elif stop_words is not None:
        raise ValueError(
            f"stop_words {stop_words!r} and an embedder, which reads all words; drop one"
        )
    model = None if embedder is None else load(os.fspath(embedder))
    corpus = Corpus(sources, file_format, text_field, data_dir)
    with new_folder(Path(output)) as folder:
        writer = DocumentWriter(folder)
        texts = writer.texts(corpus, passage_words, language)
        if model is not None:
            writer.counts["passages_cut"] = write_vectors(folder, texts, model)
        elif not write_bm25(folder, texts, stop_words):
            raise corpus.no_text()
        settings = {
            "passage_words": passage_words,
            "language": language,
            "stop_words": stop_words,
            "embedder": None if embedder is None else _absolute(embedder),
        }
        _write_record(folder, writer.counts, settings)
    return writer.counts


def _absolute(embedder: str | PathLike) -> str:
    """Returns where a model is, from any directory; names on the Hub stay as they are."""
    return os.path.abspath(embedder) if os.path.exists(embedder) else os.fspath(embedder)


def _write_record(folder: Path, counts: Mapping[str, int], settings: Mapping[str, Any]) -> None:
    """Writes what says that an index is complete, and of what size its files are."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    record = {
        "format": _FORMAT,
        "counts": counts,
        "settings": settings,
        "versions": {} if settings["embedder"] else {"bm25s": metadata.version("bm25s")},
        "files": {str(f.relative_to(folder)): f.stat().st_size for f in files},
    }
    replace_json(folder / RECORD, record)


class Index:
    """The passages of a collection, to be searched.

    Files are mapped into memory, so that only what is needed is read.

    Attributes:
      counts: the numbers of documents, duplicates and passages.
    """

    def __init__(self, folder: Path, embedder: FinetunedModel | None = None):
        """Opens an index.

        Args:
          folder: what `build_index` wrote.
          embedder: for an index of vectors, the model that made them; by default it is loaded
            from where it was then.

        Raises:
          FileNotFoundError: if there is no index, or a file or the embedder is missing.
          ValueError: if it is damaged, the embedder is not the one that made its vectors, or
            bm25s is not installed.
        """
        record = _check(folder)
        self.counts: dict[str, int] = record["counts"]
        made_by = record["settings"].get("embedder")
        if made_by is None and embedder is not None:
            raise ValueError(f"{str(folder)!r} is an index of words; leave out the embedder")
        if made_by is not None and embedder is None:
            embedder = _load_embedder(made_by)
        if embedder is None:
            load_bm25s()
        try:
            self._documents = Documents(folder)
            self._retriever = (
                Bm25(folder)
                if embedder is None
                else Vectors(folder, embedder, self.counts["passages"])
            )
            first = self._documents.passage(0, 0.0).text
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{folder}: cannot be opened ({error}); build it again") from None
        if isinstance(self._retriever, Vectors):
            self._retriever.check_model(first)

    def search(self, question: str, top_k: int = 10) -> list[Passage]:
        """Returns the passages that fit a question, the best first.

        From an index of words, only those that share a word with it.

        Raises:
          ValueError: if the question is not a string or is blank, or `top_k` is less than 1.
        """
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"the question must be a string, not blank: {question!r}")
        if top_k < 1:
            raise ValueError(f"top_k={top_k} must be at least 1")
        scores_P = self._retriever.scores(question)
        top_k = min(top_k, len(scores_P))
        best = np.argpartition(-scores_P, top_k - 1)[:top_k]
        best = best[np.lexsort((best, -scores_P[best]))]
        return [
            self._documents.passage(i, float(scores_P[i]))
            for i in best
            if scores_P[i] > self._retriever.floor
        ]

    def document_text(self, number: int) -> str:
        """Returns the text of the document of this number, in which passages have their places."""
        return self._documents.text(number)


def _load_embedder(path: str) -> FinetunedModel:
    try:
        return load(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"the model that made this index's vectors is missing ({error}); give its new place "
            "as the embedder"
        ) from None


def _check(folder: Path) -> dict[str, Any]:
    """Returns the record of an index, after checking that its files are there and whole."""
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
    if not all(isinstance(record.get(key), dict) for key in ("counts", "settings", "files")):
        raise ValueError(
            f"{folder / RECORD}: no counts, settings and files in it; build the index again"
        )
    for name, size in record["files"].items():
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file; build the index again")
        if file.stat().st_size != size:
            raise ValueError(
                f"{file}: has {file.stat().st_size} bytes, not {size}; build the index again"
            )
    return record
