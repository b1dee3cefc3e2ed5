"""Converts documents to rows: splits sentences, encodes pieces and packs rows with `packing`.

Everything here is a pure function of the documents' content and the settings.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from albert_jax.data.row_format import CHUNK_OVERHEAD
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.prepare.packing import SentenceRange, pack
from albert_jax.prepare.segmenters import encode_with_words, make_segmenter
from albert_jax.prepare.sentences import split_sentences
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
      languages: the documents split into sentences by the rules of each language.
    """

    histogram: np.ndarray
    rows: int = 0
    used_slots: int = 0
    sentences_split: int = 0
    empty_sentences: int = 0
    removed_marks: int = 0
    languages: Counter[str] = field(default_factory=Counter)

    def add(self, other: "RowCounts") -> None:
        """Adds the counts of other rows."""
        self.histogram += other.histogram
        self.rows += other.rows
        self.used_slots += other.used_slots
        self.sentences_split += other.sentences_split
        self.empty_sentences += other.empty_sentences
        self.removed_marks += other.removed_marks
        self.languages += other.languages

    @property
    def pieces(self) -> int:
        """The number of pieces in the rows."""
        return int(self.histogram.sum())

    def entropy(self) -> float:
        """Returns the entropy of the piece distribution in nats per piece."""
        p = self.histogram[self.histogram > 0] / self.pieces
        return float(-(p * np.log(p)).sum())


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

    pieces: np.ndarray  # uint16[n] or uint32[n]
    lengths: np.ndarray  # uint16[k], pieces per sentence
    ends: list[int]  # k + 1 running sums of the lengths, 0 first
    runs: list[SentenceRange]  # per document
    word_starts: np.ndarray | None  # bool[n], if a segmenter found the words

    def row(self, chunks: Sequence[SentenceRange], numbers: Sequence[int]) -> Row:
        """Returns a row of these chunks; `numbers` are the numbers of the block's documents."""
        spans = [slice(self.ends[c.first], self.ends[c.last]) for c in chunks]
        words = {}
        if self.word_starts is not None:
            starts = np.concatenate([self.word_starts[span] for span in spans])
            words = {"word_starts": np.packbits(starts)}
        return words | {
            "pieces": np.concatenate([self.pieces[span] for span in spans]),
            "sentence_lengths": np.concatenate([self.lengths[c.first : c.last] for c in chunks]),
            "chunk_sentences": np.array([c.last - c.first for c in chunks], np.uint16),
            "chunk_documents": np.array([numbers[c.owner] for c in chunks], np.uint64),
        }


class RowBuilder:
    """Makes the rows of a block of documents; each worker process has one."""

    def __init__(self, tokenizer_file: str, settings: RowSettings):
        self._tokenizer: Tokenizer = load_tokenizer(tokenizer_file)
        self._settings = settings
        name = settings.segmenter
        self._segmenter = None if name is None else make_segmenter(name)

    def __call__(self, documents: Sequence[NumberedDocument]) -> tuple[list[Row], RowCounts]:
        """Makes the rows of a block.

        Args:
          documents: the block; a row holds chunks of one block only.

        Returns:
          The rows and counts over them. A row is a dict of
            pieces: uint16[n] or uint32[n], ids without special ones.
            sentence_lengths: uint16[k], pieces per sentence.
            chunk_sentences: uint16[m], sentences per chunk.
            chunk_documents: uint64[m], document number per chunk.
            word_starts: uint8, a bit per piece, if a segmenter is set.
        """
        counts = RowCounts(np.zeros(self._tokenizer.vocab_size, np.int64))
        block = self._encode(documents, counts)
        rows = pack(block.ends, block.runs, [d.digest for d in documents], self._settings)
        counts.rows = len(rows)
        counts.used_slots = counts.pieces + CHUNK_OVERHEAD * sum(map(len, rows))
        numbers = [d.number for d in documents]
        return [block.row(chunks, numbers) for chunks in rows], counts

    def _encode(self, documents: Sequence[NumberedDocument], counts: RowCounts) -> _Sentences:
        texts = [self._sentences(d, counts) for d in documents]
        pieces, sizes, starts = self._encode_texts(list(itertools.chain(*texts)))
        counts.histogram += np.bincount(pieces, minlength=len(counts.histogram))
        counts.empty_sentences += int((sizes == 0).sum())
        counts.removed_marks += self._tokenizer.count_removed_marks(itertools.chain(*texts))
        parts = self._cut(pieces, starts, sizes.tolist(), counts)
        lengths: list[int] = []
        runs = []
        for i, own in enumerate(texts):
            first = len(lengths)
            for part in itertools.islice(parts, len(own)):
                lengths += part
            runs.append(SentenceRange(i, first, len(lengths)))
        ends = list(itertools.accumulate(lengths, initial=0))
        return _Sentences(pieces, np.array(lengths, np.uint16), ends, runs, starts)

    def _sentences(self, document: NumberedDocument, counts: RowCounts) -> list[str]:
        if document.is_sentences:
            return document.paragraphs
        language = self._settings.language_of(document.paragraphs)
        counts.languages[language] += 1
        return split_sentences(document.paragraphs, language)

    def _encode_texts(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Returns ids and lengths as the tokenizer, and word starts if a segmenter is set."""
        if self._segmenter is None:
            return *self._tokenizer.encode_flat(texts), None
        return encode_with_words(self._tokenizer, self._segmenter, texts)

    def _cut(
        self,
        pieces: np.ndarray,
        word_starts: np.ndarray | None,
        sizes: list[int],
        counts: RowCounts,
    ) -> Iterator[list[int]]:
        """Yields the lengths of each sentence's parts: one, none if empty, more if too long."""
        limit = self._settings.max_pieces
        at = 0
        for size in sizes:
            if size <= limit:
                yield [size] if size else []
            else:
                counts.sentences_split += 1
                own = slice(at, at + size)
                if word_starts is None:
                    yield cut_sentence(self._tokenizer.word_starts[pieces[own]], limit)
                else:
                    yield cut_sentence(word_starts[own], limit)
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
