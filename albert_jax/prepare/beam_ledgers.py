"""Selection of documents and blocks for a corpus that is too large for one machine to read.

Ledgers are small files with an entry for each kept document. Workers write them, each for a
stretch of a source. Read one at a time in the order of the corpus, they determine the blocks.
"""

import itertools
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.data.files import replacing
from albert_jax.prepare.documents import SPLITS, BlockEnds, IncomingDocuments, split_of_digest
from albert_jax.prepare.settings import Settings

LEDGER_DOCUMENTS = 1 << 16  # documents of a source that a ledger covers: at most 2 MB
LEDGER_ENTRY = np.dtype(
    [
        ("place", np.int64),  # in the source
        ("digest", np.uint64),
        ("chars", np.int64),
        ("split", np.int8),  # index into SPLITS
        ("block", np.int64),  # in the split; -1 until `assign_blocks`
    ]
)


class SourceSummary(NamedTuple):
    """Facts about a source, known after reading it.

    Attributes:
      index: its index in the corpus.
      documents: the number of documents, including duplicates.
      sha256: as `Source.sha256`.
      counts: as `Source.counts`.
    """

    index: int
    documents: int
    sha256: str
    counts: Counter[str]


def ledger_at(place: int) -> int:
    """Returns the number of the ledger in which a document of a source belongs."""
    return place // LEDGER_DOCUMENTS


def write_ledger(
    folder: Path,
    source: int,
    number: int,
    entries: Iterable[tuple[int, int, int]],
    settings: Settings,
) -> None:
    """Writes ledger `number` of a source.

    Args:
      folder: the folder of all ledgers.
      source: the source's index.
      number: the ledger's number in the source (see `ledger_at`).
      entries: (place, digest, chars) of each kept document, in any order.
      settings: determine the split.
    """
    ledger = [
        (place, digest, chars, SPLITS.index(split_of_digest(digest, settings)), -1)
        for place, digest, chars in sorted(entries)
    ]
    save(_path(folder, source, number), np.array(ledger, LEDGER_ENTRY))


def _path(folder: Path, source: int, number: int) -> Path:
    return folder / f"ledger-{source}-{number}"


def ledgers(folder: Path, summary: SourceSummary) -> Iterator[Path]:
    """Yields the ledgers of a source in order; a stretch without kept documents has none."""
    for number in range(-(-summary.documents // LEDGER_DOCUMENTS)):
        path = _path(folder, summary.index, number)
        if path.exists():
            yield path


def entries_of(folder: Path, summary: SourceSummary) -> Iterator[tuple[int, int, str, int]]:
    """Yields (place, digest, split, block) of each kept document of a source, in order."""
    for path in ledgers(folder, summary):
        for place, digest, _, split, block in load(path).tolist():
            yield place, digest, SPLITS[split], block


def assign_blocks(folder: Path, summaries: Sequence[SourceSummary]) -> IncomingDocuments:
    """Records each document's block in the ledgers; returns counts of incoming documents.

    Args:
      folder: the folder of the ledgers.
      summaries: the summaries of all sources, in order.
    """
    incoming, ends, blocks = IncomingDocuments(), BlockEnds(), [0] * len(SPLITS)
    for summary in summaries:
        if summary.documents:
            incoming.per_source[summary.index] = [incoming.documents, summary.documents]
        incoming.documents += summary.documents
    incoming.duplicates = incoming.documents
    for path in itertools.chain.from_iterable(ledgers(folder, summary) for summary in summaries):
        ledger = load(path)
        numbers = []
        for split, chars in ledger[["split", "chars"]].tolist():
            numbers.append(blocks[split])
            blocks[split] += ends.after(SPLITS[split], chars)
        ledger["block"] = numbers
        save(path, ledger)
        incoming.duplicates -= len(ledger)
    return incoming


def save(path: Path, value: Any) -> None:
    """Writes a value atomically; of several writers, the last one wins."""
    with replacing(path) as temporary:
        temporary.write_bytes(pickle.dumps(value))


def load(path: Path) -> Any:
    """Returns a value written by `save`; use it only on files of this run."""
    return pickle.loads(path.read_bytes())
