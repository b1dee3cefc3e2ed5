"""Converts documents to rows: splits sentences, encodes pieces and packs rows with `packing`.

Everything here is a pure function of the documents' content and the settings.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import sentencex

from albert_jax.data.row_format import CHUNK_OVERHEAD
from albert_jax.data.tokenizer import Tokenizer, count_removed_marks
from albert_jax.prepare.packing import SentenceRange, pack
from albert_jax.prepare.settings import RowSettings

Row = dict[str, np.ndarray]


class NumberedDocument(NamedTuple):
    """A document on its way into rows.

    Attributes:
      number: its position in the corpus.
      digest: 64-bit hash of its content; seeds the draws of its short chunks.
      paragraphs: its text.
      is_sentences: whether each paragraph is already a single sentence.
    """

    number: int
    digest: int
    paragraphs: list[str]
    is_sentences: bool


@dataclass
class RowCounts:
    """Statistics of rows.

    Attributes:
      histogram: int64[vocab_size], the number of occurrences of each piece.
      rows: the number of rows.
      used_slots: Σ over chunks of pieces + 3.
      sentences_split: sentences too long for a row, cut into parts.
      empty_sentences: sentences that are empty after normalisation (such as accents only).
      removed_marks: accents, vowel signs and other marks that normalisation removed.
    """

    histogram: np.ndarray
    rows: int = 0
    used_slots: int = 0
    sentences_split: int = 0
    empty_sentences: int = 0
    removed_marks: int = 0

    def add(self, other: "RowCounts") -> None:
        """Adds the counts of other rows."""
        self.histogram += other.histogram
        self.rows += other.rows
        self.used_slots += other.used_slots
        self.sentences_split += other.sentences_split
        self.empty_sentences += other.empty_sentences
        self.removed_marks += other.removed_marks

    @property
    def pieces(self) -> int:
        """The number of pieces in the rows."""
        return int(self.histogram.sum())

    def entropy(self) -> float:
        """Returns the entropy of the piece distribution in nats per piece."""
        p = self.histogram[self.histogram > 0] / self.pieces
        return float(-(p * np.log(p)).sum())


# The time of `sentencex.segment` grows with the square of the length if not all is ASCII.
_MOST_CHARS = 8000
_SENTENCE_END = re.compile(r"[。！？]+[」』）”’]*|[.!?…।؟۔]+[\"'”’)]*\s")


def split_sentences(paragraphs: Iterable[str]) -> list[str]:
    """Returns the sentences of all paragraphs in order; only white space is dropped."""
    parts = itertools.chain.from_iterable(map(_bounded, paragraphs))
    found = (sentence for part in parts for sentence in sentencex.segment("en", part))  # pyright: ignore
    return [sentence for text in found if (sentence := text.strip())]


def _bounded(paragraph: str) -> Iterator[str]:
    """Yields the parts of a long paragraph, cut after sentences where possible."""
    at = 0
    while len(paragraph) - at > _MOST_CHARS and not paragraph.isascii():
        window = paragraph[at : at + _MOST_CHARS]
        ends = [match.end() for match in _SENTENCE_END.finditer(window)]
        cut = ends[-1] if ends else window.rfind(" ") + 1 or _MOST_CHARS
        yield window[:cut]
        at += cut
    yield paragraph[at:]


def cut_sentence(starts: np.ndarray, limit: int) -> list[int]:
    """Cuts a sentence with too many pieces into parts of at most `limit` pieces.

    Args:
      starts: bool[n], True where a piece begins a word.
      limit: the longest part, in pieces.

    Returns:
      The lengths of the parts. Parts end at word boundaries if possible.
    """
    parts, at = [], 0
    while len(starts) - at > limit:
        words = np.flatnonzero(starts[at + 1 : at + limit + 1])
        parts.append(int(words[-1]) + 1 if len(words) else limit)
        at += parts[-1]
    return [*parts, len(starts) - at]


class _Sentences(NamedTuple):
    """The concatenated encoded sentences of a block."""

    pieces: np.ndarray  # uint16[n]
    lengths: np.ndarray  # uint16[k], pieces per sentence
    ends: list[int]  # k + 1 running sums of the lengths, 0 first
    runs: list[SentenceRange]  # per document

    def row(self, chunks: Sequence[SentenceRange], numbers: Sequence[int]) -> Row:
        """Returns a row of these chunks; `numbers` are the numbers of the block's documents."""
        pieces = [self.pieces[self.ends[c.first] : self.ends[c.last]] for c in chunks]
        return {
            "pieces": np.concatenate(pieces),
            "sentence_lengths": np.concatenate([self.lengths[c.first : c.last] for c in chunks]),
            "chunk_sentences": np.array([c.last - c.first for c in chunks], np.uint16),
            "chunk_documents": np.array([numbers[c.owner] for c in chunks], np.uint64),
        }


class RowBuilder:
    """Makes the rows of a block of documents; each worker process has one."""

    def __init__(self, tokenizer_file: str, settings: RowSettings):
        self._tokenizer = Tokenizer(tokenizer_file)
        self._settings = settings

    def __call__(self, documents: Sequence[NumberedDocument]) -> tuple[list[Row], RowCounts]:
        """Makes the rows of a block.

        Args:
          documents: the block; a row holds chunks of one block only.

        Returns:
          The rows and counts over them. A row is a dict of
            pieces: uint16[n], ids without special ones.
            sentence_lengths: uint16[k], pieces per sentence.
            chunk_sentences: uint16[m], sentences per chunk.
            chunk_documents: uint64[m], document number per chunk.
        """
        counts = RowCounts(np.zeros(self._tokenizer.vocab_size, np.int64))
        block = self._encode(documents, counts)
        rows = pack(block.ends, block.runs, [d.digest for d in documents], self._settings)
        counts.rows = len(rows)
        counts.used_slots = counts.pieces + CHUNK_OVERHEAD * sum(map(len, rows))
        numbers = [d.number for d in documents]
        return [block.row(chunks, numbers) for chunks in rows], counts

    def _encode(self, documents: Sequence[NumberedDocument], counts: RowCounts) -> _Sentences:
        texts = [
            d.paragraphs if d.is_sentences else split_sentences(d.paragraphs) for d in documents
        ]
        pieces, sizes = self._tokenizer.encode_flat(list(itertools.chain(*texts)))
        counts.histogram += np.bincount(pieces, minlength=len(counts.histogram))
        counts.empty_sentences += int((sizes == 0).sum())
        counts.removed_marks += sum(map(count_removed_marks, itertools.chain(*texts)))
        parts = self._cut(pieces, sizes.tolist(), counts)
        lengths: list[int] = []
        runs = []
        for i, own in enumerate(texts):
            first = len(lengths)
            for part in itertools.islice(parts, len(own)):
                lengths += part
            runs.append(SentenceRange(i, first, len(lengths)))
        ends = list(itertools.accumulate(lengths, initial=0))
        return _Sentences(pieces, np.array(lengths, np.uint16), ends, runs)

    def _cut(self, pieces: np.ndarray, sizes: list[int], counts: RowCounts) -> Iterator[list[int]]:
        """Yields the lengths of each sentence's parts: one, none if empty, more if too long."""
        limit = self._settings.max_pieces
        at = 0
        for size in sizes:
            if size <= limit:
                yield [size] if size else []
            else:
                counts.sentences_split += 1
                yield cut_sentence(self._tokenizer.word_starts[pieces[at : at + size]], limit)
            at += size


_builder: RowBuilder | None = None  # one per process


def start_builder(tokenizer_file: str, settings: RowSettings) -> None:
    """Sets up this process for `build`."""
    global _builder
    _builder = RowBuilder(tokenizer_file, settings)


def build(item: tuple[str, Sequence[NumberedDocument]]) -> tuple[str, list[Row], RowCounts]:
    """Returns (split, rows, counts) of a block given as (split, documents)."""
    assert _builder is not None, "start_builder has not run in this process"
    split, documents = item
    return split, *_builder(documents)
