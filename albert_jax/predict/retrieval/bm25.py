"""Search for words, by BM25 of the library bm25s.

bm25/       the scores of each word in each passage
words.txt   all words, sorted by their UTF-8
words.npy   where each word ends in that file, and its number in bm25/
"""

import bisect
import logging
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.data.scripts import UNSPACED

# Marks on letters that `\w` leaves out: accents, points, and all of Indic scripts but their full
# stops. Zero-width joiners are within words too.
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed"
    "\u0900-\u0963\u0966-\u0dff\u200c\u200d"
)
# A word, or a letter of a script without spaces.
_WORD = rf"(?:[^\W{UNSPACED}]+|[{_MARKS}]+)+|(?=\w)[{UNSPACED}]"
_ENTRY = np.dtype([("end", "<i8"), ("number", "<i4")])


class Bm25:
    """The scores of words in passages, mapped into memory.

    Attributes:
      floor: the score of passages that are not found.
    """

    floor = 0.0

    def __init__(self, folder: Path):
        """Opens what `write_bm25` wrote.

        Raises:
          ValueError: if it is damaged, or bm25s is not installed.
        """
        load = load_bm25s().BM25.load
        # The library would read all words, which takes as long as thousands of searches.
        self._scores = load(folder / "bm25", mmap=True, load_vocab=False, show_progress=False)
        self._words = np.memmap(folder / "words.txt", np.uint8, "r")
        self._entries_W = np.load(folder / "words.npy", mmap_mode="r")

    def scores(self, question: str) -> np.ndarray:
        """Returns the score of each passage, float32 [P]; 0 without a word in common."""
        words = _words_of([question]).vocab
        numbers = [number for word in words if (number := self._number(word.encode())) is not None]
        return self._scores.get_scores_from_ids(numbers)

    def _number(self, word: bytes) -> int | None:
        """Returns the number of a word, or None if no passage has it."""
        entries_W = self._entries_W
        i = bisect.bisect_left(range(len(entries_W)), word, key=self._word)
        is_there = i < len(entries_W) and self._word(i) == word
        return int(entries_W[i]["number"]) if is_there else None

    def _word(self, i: int) -> bytes:
        begin = self._entries_W[i - 1]["end"] if i else 0
        return self._words[begin : self._entries_W[i]["end"]].tobytes()


def write_bm25(folder: Path, texts: Iterator[str], stop_words: str | None) -> bool:
    """Indexes the words of passages; returns whether there are any.

    Args:
      folder: where to write.
      texts: the passages.
      stop_words: the code of a language whose most frequent words are left out.
    """
    words = _words_of(texts, stop_words)
    if not words.vocab:
        return False
    retriever = load_bm25s().BM25()
    retriever.index(words, show_progress=False)
    retriever.save(folder / "bm25", show_progress=False)
    (folder / "bm25" / "vocab.index.json").unlink()
    _write_words(folder, retriever.vocab_dict)
    return True


def _write_words(folder: Path, numbers: Mapping[str, int]) -> None:
    """Writes words and their numbers so that one can be found without reading all."""
    encoded = sorted((word.encode(), number) for word, number in numbers.items())
    entries_W = np.empty(len(encoded), _ENTRY)
    entries_W["end"] = np.cumsum([len(word) for word, _ in encoded])
    entries_W["number"] = [number for _, number in encoded]
    (folder / "words.txt").write_bytes(b"".join(word for word, _ in encoded))
    np.save(folder / "words.npy", entries_W)


def check_stop_words(stop_words: str | None) -> None:
    """Checks that bm25s is there and has the stop words of a language, if one is given.

    Raises:
      ValueError: if it has not, or is not installed.
    """
    load_bm25s()
    try:
        _words_of([], stop_words)
    except ValueError:
        raise ValueError(
            f"stop_words {stop_words!r}: bm25s has no such list; give a code such as en or de"
        ) from None


def _words_of(texts: Sequence[str] | Iterator[str], stop_words: str | None = None) -> Any:
    """Returns the words of each text as bm25s has them: numbers, and the vocabulary."""
    normal = (t if t.isascii() else unicodedata.normalize("NFKC", t) for t in texts)
    tokenize = load_bm25s().tokenize
    return tokenize(normal, token_pattern=_WORD, stopwords=stop_words, show_progress=False)  # pyright: ignore


def load_bm25s() -> Any:
    """Returns the library bm25s.

    Raises:
      ValueError: if it is not installed.
    """
    # On first use: not every installation has it, and it starts JAX's backend.
    try:
        import bm25s
    except ImportError:
        raise ValueError(
            "collections of documents need bm25s: pip install 'albert_jax[retrieval]'"
        ) from None
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # itself it sets DEBUG
    return bm25s
