"""Packing of sentences into chunks, and of chunks into rows.

A chunk is a run of whole sentences of one document that becomes one ALBERT input
([CLS] A [SEP] B [SEP], hence three slots more than its pieces). A row holds one chunk, or as many
as fit when packing. This module uses only the lengths of sentences.

Most documents are shorter than a row, and a chunk rarely fills a row exactly. Without packing, the
rest of the row would be padding, on which computation is wasted. With packing, the room that a
chunk leaves is filled with the longest document end that fits. Ends are taken so that the rest of
a document stays contiguous and can still form long chunks.
"""

import bisect
import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from albert_jax.data.row_format import CHUNK_OVERHEAD
from albert_jax.prepare.settings import RowSettings

# Shorter document ends are not used as fillers: they teach little, and padding costs less.
MIN_TAIL = 8
# Source: measured. Shorter segments give more ends and so closer fits; longer ones keep contexts
# long.
ROWS_PER_SEGMENT = 8


class SentenceRange(NamedTuple):
    """Sentences [first, last) of document `owner`, all three counted within the block."""

    owner: int
    first: int
    last: int


def target_length(digest: int, sentence: int, settings: RowSettings) -> int:
    """Returns the target number of pieces for the chunk that begins at a document's `sentence`.

    It is a full row or, with probability `short_seq_prob`, uniform from 2 to a full row.
    Source: arXiv:1909.11942, section 4.1.
    """
    key = struct.pack("<QqQ", digest, settings.seed, sentence)
    chance, length = struct.unpack("<QQ", hashlib.blake2b(key, digest_size=16).digest())
    if chance >= settings.short_seq_prob * 2**64:
        return settings.max_pieces
    return 2 + length % (settings.max_pieces - 1)


def chunk_end(ends: Sequence[int], first: int, last: int, target: int, limit: int) -> int:
    """Returns the end of the chunk that begins at sentence `first` of [first, last).

    It ends once `target` pieces are reached, or before the sentence that would exceed `limit`.
    Sentences [i, j) have `ends[j] - ends[i]` pieces; none has more than `limit`.
    """
    stop = bisect.bisect_left(ends, ends[first] + target, first + 1, last)
    return stop if ends[stop] - ends[first] <= limit else stop - 1


def pack(
    ends: Sequence[int],
    runs: Sequence[SentenceRange],
    digests: Sequence[int],
    settings: RowSettings,
) -> list[list[SentenceRange]]:
    """Makes the rows of a block.

    Documents are cut into chunks from their beginning (see `chunk_end`). Without packing, a row is
    one chunk. With packing, a chunk opens a row, and the remaining room is filled with the best
    fitting document ends of the block.

    Args:
      ends: cumulative pieces of the block before each sentence, starting with 0.
      runs: the sentences of each document, each of at most seq_len - 3 pieces.
      digests: the hash of each document.
      settings: the row settings.

    Returns:
      The chunks of each row. Every sentence is in exactly one chunk.
    """
    limit = settings.max_pieces
    segments = list(_segments(ends, runs, settings.seq_len))
    tails = Tails(ends, segments, limit)
    rows = []
    for i, segment in enumerate(segments):
        first, begin, digest = segment.first, runs[segment.owner].first, digests[segment.owner]
        while first < (last := tails.lasts[i]):
            target = target_length(digest, first - begin, settings)
            stop = chunk_end(ends, first, last, target, limit)
            tails.begin(i, stop)
            row = [SentenceRange(segment.owner, first, stop)]
            room = limit - (ends[stop] - ends[first])
            while len(row) < settings.max_chunks and (tail := tails.take(room - CHUNK_OVERHEAD)):
                row.append(SentenceRange(segments[tail.owner].owner, tail.first, tail.last))
                room -= ends[tail.last] - ends[tail.first] + CHUNK_OVERHEAD
            rows.append(row)
            first = stop
    return rows


def _segments(
    ends: Sequence[int], runs: Sequence[SentenceRange], seq_len: int
) -> Iterator[SentenceRange]:
    """Cuts long documents into segments, so that books offer as many ends as articles do."""
    for run in runs:
        first = run.first
        while first < run.last:
            goal = ends[first] + ROWS_PER_SEGMENT * seq_len
            last = bisect.bisect_left(ends, goal, first + 1, run.last)
            yield SentenceRange(run.owner, first, last)
            first = last


class Tails:
    """The ends of runs, indexed by length, to fill the room that a chunk leaves in its row.

    Whole sentences are taken from the end of a run, so the rest of the run stays contiguous.

    Attributes:
      lasts: the current end of each run.
    """

    def __init__(self, ends: Sequence[int], runs: Sequence[SentenceRange], limit: int):
        self._ends = ends
        self._firsts = [run.first for run in runs]
        self.lasts = [run.last for run in runs]
        self._by_length: list[list[SentenceRange]] = [[] for _ in range(limit + 1)]
        self._lengths = 0  # bit n is set if by_length[n] may be nonempty
        for i in range(len(runs)):
            self._offer(i)

    def begin(self, i: int, first: int) -> None:
        """Records that the sentences of run `i` before `first` are used."""
        self._firsts[i] = first

    def _offer(self, i: int) -> None:
        """Indexes all ends of run `i`; earlier entries are void because `lasts[i]` has moved."""
        first, last = self._firsts[i], self.lasts[i]
        for start in range(last - 1, first - 1, -1):
            length = self._ends[last] - self._ends[start]
            if length >= len(self._by_length):
                break
            if length >= MIN_TAIL or start == first:
                self._by_length[length].append(SentenceRange(i, start, last))
                self._lengths |= 1 << length

    def take(self, longest: int) -> SentenceRange | None:
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
