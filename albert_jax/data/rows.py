"""Documents to fixed rows: sentences, pieces, chunks of whole sentences, packing.

A chunk is a run of whole sentences of one document that becomes one ALBERT input
([CLS] A [SEP] B [SEP], hence three slots more than its pieces). A row holds one chunk, or as many
as fit when packing. Everything here is a pure function of the document's content and the settings.
"""

import bisect
import hashlib
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import sentencex

from albert_jax.tokenizer import Tokenizer

CHUNK_OVERHEAD = 3  # [CLS] and two [SEP]
MIN_SEQ_LEN = 16  # at least one chunk of a dozen pieces
MAX_SEQ_LEN = 65_535  # lengths are stored as uint16
MIN_SLOTS_PER_CHUNK = 16  # bounds the chunks of a row, and with them the loader's [B, C] arrays

# A shorter end of a document is left where it is: it teaches little, and a row loses less.
MIN_TAIL = 8
# Source: measured; more stretches per block give closer fits, fewer keep contexts long.
ROWS_PER_STRAND = 8


def max_chunks(seq_len: int) -> int:
    """Returns how many chunks a packed row of `seq_len` slots may hold."""
    return max(1, seq_len // MIN_SLOTS_PER_CHUNK)


class NumberedDocument(NamedTuple):
    """A document on its way into rows.

    Attributes:
      number: its position in the corpus.
      digest: 64-bit hash of its content; draws its short chunks.
      paragraphs: its text.
      is_sentences: whether each paragraph is one sentence already.
    """

    number: int
    digest: int
    paragraphs: list[str]
    is_sentences: bool


@dataclass(frozen=True)
class RowSettings:
    """What determines the rows made from a block of documents.

    Attributes:
      seq_len: slots in a row.
      packing: whether a row may hold several chunks.
      short_seq_prob: share of the chunks that get a shorter target length.
      seed: draws those chunks.
    """

    seq_len: int = 512
    packing: bool = True
    short_seq_prob: float = 0.1
    seed: int = 0

    def __post_init__(self):
        if not MIN_SEQ_LEN <= self.seq_len <= MAX_SEQ_LEN:
            raise ValueError(
                f"seq_len {self.seq_len}: must be from {MIN_SEQ_LEN} to {MAX_SEQ_LEN}"
            )
        if not 0 <= self.short_seq_prob <= 1:
            raise ValueError(f"short_seq_prob {self.short_seq_prob}: must be from 0 to 1")


@dataclass
class Block:
    """Rows made from a block of documents, and what to know about them.

    Attributes:
      rows: serialised TFDS examples.
      pieces: Σ pieces of the rows.
      used_slots: Σ over chunks of pieces + 3.
      sentences_split: sentences too long for a row, cut into parts.
      empty_sentences: sentences of which normalisation left nothing (accents only, say).
      histogram: int64[vocab_size], how often each piece occurs.
    """

    rows: list[bytes] = field(default_factory=list)
    pieces: int = 0
    used_slots: int = 0
    sentences_split: int = 0
    empty_sentences: int = 0
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def split_sentences(paragraphs: Iterable[str]) -> list[str]:
    """Returns the sentences of all paragraphs in order; only white space is dropped."""
    parts = (part for paragraph in paragraphs for part in sentencex.segment("en", paragraph))  # pyright: ignore
    return [sentence for part in parts if (sentence := part.strip())]


def cut_sentence(starts: np.ndarray, limit: int) -> list[int]:
    """Cuts a sentence of too many pieces into parts of at most `limit`.

    Args:
      starts: bool[n], True where a piece begins a word.
      limit: the longest part, in pieces.

    Returns:
      The lengths of the parts. A part ends before a word's beginning where there is one to end at.
    """
    parts, at = [], 0
    while len(starts) - at > limit:
        words = np.flatnonzero(starts[at + 1 : at + limit + 1])
        parts.append(int(words[-1]) + 1 if len(words) else limit)
        at += parts[-1]
    return [*parts, len(starts) - at]


def target_length(digest: int, sentence: int, settings: RowSettings) -> int:
    """Returns how many pieces the chunk that begins at a document's `sentence` should have.

    All a row can take, or with probability `short_seq_prob` uniform from 2 to that.
    Source: arXiv:1909.11942, section 4.1.
    """
    limit = settings.seq_len - CHUNK_OVERHEAD
    key = struct.pack("<QqQ", digest, settings.seed, sentence)
    chance, length = struct.unpack("<QQ", hashlib.blake2b(key, digest_size=16).digest())
    if chance >= settings.short_seq_prob * 2**64:
        return limit
    return 2 + length % (limit - 1)


class Run(NamedTuple):
    """Sentences [first, last) of document `owner`, all three counted within the block."""

    owner: int
    first: int
    last: int


def chunk_end(ends: Sequence[int], first: int, last: int, target: int, limit: int) -> int:
    """Returns where the chunk ends that begins at sentence `first` of [first, last).

    It ends where `target` pieces are reached, or before the sentence that would take it over
    `limit`. `ends[j] - ends[i]` is what sentences [i, j) hold; none holds more than `limit`.
    """
    stop = bisect.bisect_left(ends, ends[first] + target, first + 1, last)
    return stop if ends[stop] - ends[first] <= limit else stop - 1


class Tails:
    """The ends of runs, by length, to fill the room that a chunk leaves in its row.

    Taking whole sentences from the end of a run leaves the rest of it in one piece.

    Attributes:
      lasts: where each run ends now.
    """

    def __init__(self, ends: Sequence[int], runs: Sequence[Run], limit: int):
        self._ends = ends
        self._firsts = [run.first for run in runs]
        self.lasts = [run.last for run in runs]
        self._by_length: list[list[Run]] = [[] for _ in range(limit + 1)]
        self._lengths = 0  # bit n: by_length[n] may hold something
        for i in range(len(runs)):
            self._offer(i)

    def begin(self, i: int, first: int) -> None:
        """Says that the sentences of run `i` before `first` are gone."""
        if self._firsts:
            self._firsts[i] = first

    def _offer(self, i: int) -> None:
        """Files all ends of run `i`; those filed before are void because `lasts[i]` has moved."""
        first, last = self._firsts[i], self.lasts[i]
        for start in range(last - 1, first - 1, -1):
            length = self._ends[last] - self._ends[start]
            if length >= len(self._by_length):
                break
            if length >= MIN_TAIL or start == first:
                self._by_length[length].append(Run(i, start, last))
                self._lengths |= 1 << length

    def take(self, longest: int) -> Run | None:
        """Takes the longest end of at most `longest` pieces; its owner is the run's index."""
        while longest > 0 and (fitting := self._lengths & ((2 << longest) - 1)):
            length = fitting.bit_length() - 1
            filed = self._by_length[length]
            while filed:
                tail = filed.pop()
                i, start, last = tail
                if last == self.lasts[i] and start >= self._firsts[i]:
                    self.lasts[i] = start
                    self._offer(i)
                    return tail
            self._lengths ^= 1 << length
        return None


def pack(
    ends: Sequence[int], runs: Sequence[Run], digests: Sequence[int], settings: RowSettings
) -> list[list[Run]]:
    """Makes the rows of a block.

    Documents are cut into chunks from their beginning (see `chunk_end`). Without packing a row is
    a chunk. With it a chunk opens a row, and the room it leaves goes to the best fitting document
    ends of the block.

    Args:
      ends: pieces of the block up to each sentence, 0 first.
      runs: the sentences of each document, each of at most seq_len - 3 pieces.
      digests: the hash of each document.
      settings: the row settings.

    Returns:
      The chunks of each row. Every sentence is in exactly one chunk.
    """
    limit = settings.seq_len - CHUNK_OVERHEAD
    most = max_chunks(settings.seq_len) if settings.packing else 1
    strands = list(_strands(ends, runs, settings.seq_len))
    tails = Tails(ends, strands if settings.packing else [], limit)
    rows = []
    for i, strand in enumerate(strands):
        first, begin, digest = strand.first, runs[strand.owner].first, digests[strand.owner]
        while first < (last := tails.lasts[i] if settings.packing else strand.last):
            target = target_length(digest, first - begin, settings)
            stop = chunk_end(ends, first, last, target, limit)
            tails.begin(i, stop)
            row = [Run(strand.owner, first, stop)]
            room = limit - (ends[stop] - ends[first])
            while len(row) < most and (tail := tails.take(room - CHUNK_OVERHEAD)):
                row.append(Run(strands[tail.owner].owner, tail.first, tail.last))
                room -= ends[tail.last] - ends[tail.first] + CHUNK_OVERHEAD
            rows.append(row)
            first = stop
    return rows


def _strands(ends: Sequence[int], runs: Sequence[Run], seq_len: int) -> Iterator[Run]:
    """Cuts long documents into stretches, so that few books have as many ends as many articles."""
    for run in runs:
        first = run.first
        while first < run.last:
            goal = ends[first] + ROWS_PER_STRAND * seq_len
            last = bisect.bisect_left(ends, goal, first + 1, run.last)
            yield Run(run.owner, first, last)
            first = last


def features() -> Any:
    """Returns the TFDS features of a row (see `row_of`)."""
    import tensorflow_datasets as tfds

    def integers(dtype: type) -> Any:
        return tfds.features.Tensor(
            shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES
        )

    return tfds.features.FeaturesDict(
        {
            "pieces": integers(np.uint16),
            "sentence_lengths": integers(np.uint16),
            "chunk_sentences": integers(np.uint16),
            "chunk_documents": integers(np.uint64),
        }
    )


def serialize(row: dict[str, np.ndarray]) -> bytes:
    """Returns a row as TFDS stores it; equal rows give equal bytes.

    `features().serialize_example` gives the same record, but its order of the four entries differs
    from run to run, and it takes ten times as long.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
    for name, values in row.items():
        example.features.feature[name].bytes_list.value.append(values.tobytes())
    return example.SerializeToString(deterministic=True)


class _Sentences(NamedTuple):
    """The encoded sentences of a block, one after the other."""

    pieces: np.ndarray  # uint16[n]
    lengths: np.ndarray  # uint16[k], pieces per sentence
    ends: list[int]  # k + 1 running sums of the lengths, 0 first
    runs: list[Run]  # per document

    def row(self, chunks: Sequence[Run], numbers: Sequence[int]) -> dict[str, np.ndarray]:
        """Returns the features of a row.

        Args:
          chunks: the chunks of the row.
          numbers: the corpus number of each document of the block.

        Returns:
          pieces: uint16[n], ids without special ones.
          sentence_lengths: uint16[k], pieces per sentence.
          chunk_sentences: uint16[m], sentences per chunk.
          chunk_documents: uint64[m], document number per chunk.
        """
        pieces = [self.pieces[self.ends[c.first] : self.ends[c.last]] for c in chunks]
        return {
            "pieces": np.concatenate(pieces),
            "sentence_lengths": np.concatenate([self.lengths[c.first : c.last] for c in chunks]),
            "chunk_sentences": np.array([c.last - c.first for c in chunks], np.uint16),
            "chunk_documents": np.array([numbers[c.owner] for c in chunks], np.uint64),
        }


class RowBuilder:
    """Makes the rows of a block of documents; lives in each worker process."""

    def __init__(self, tokenizer_file: str, settings: RowSettings):
        self._tokenizer = Tokenizer(tokenizer_file)
        self._settings = settings

    def __call__(self, documents: Sequence[NumberedDocument]) -> Block:
        """Returns the block's rows, serialised, with their statistics."""
        block = Block()
        sentences = self._encode(documents, block)
        rows = pack(sentences.ends, sentences.runs, [d.digest for d in documents], self._settings)
        numbers = [d.number for d in documents]
        block.rows = [serialize(sentences.row(row, numbers)) for row in rows]
        block.pieces = len(sentences.pieces)
        block.used_slots = block.pieces + CHUNK_OVERHEAD * sum(map(len, rows))
        block.histogram = np.bincount(sentences.pieces, minlength=self._tokenizer.vocab_size)
        return block

    def _encode(self, documents: Sequence[NumberedDocument], block: Block) -> _Sentences:
        texts = [
            d.paragraphs if d.is_sentences else split_sentences(d.paragraphs) for d in documents
        ]
        pieces, counts = self._tokenizer.encode_flat(list(itertools.chain(*texts)))
        block.empty_sentences = int((counts == 0).sum())
        parts = self._cut(pieces, counts.tolist(), block)
        lengths: list[int] = []
        runs = []
        for i, own in enumerate(texts):
            first = len(lengths)
            for part in itertools.islice(parts, len(own)):
                lengths += part
            runs.append(Run(i, first, len(lengths)))
        ends = list(itertools.accumulate(lengths, initial=0))
        return _Sentences(pieces, np.array(lengths, np.uint16), ends, runs)

    def _cut(self, pieces: np.ndarray, counts: list[int], block: Block) -> Iterator[list[int]]:
        """Yields the lengths of each sentence's parts: one, none if empty, more if too long."""
        limit = self._settings.seq_len - CHUNK_OVERHEAD
        at = 0
        for count in counts:
            if count <= limit:
                yield [count] if count else []
            else:
                block.sentences_split += 1
                yield cut_sentence(self._tokenizer.word_starts[pieces[at : at + count]], limit)
            at += count
