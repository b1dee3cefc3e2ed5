"""Which documents stay, and in which block each is, for a corpus that no machine reads alone.

Ledgers are small files with an entry for each document that stays. Workers write them, each for a
stretch of a source; read in the order of the corpus, one at a time, they give the blocks.
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

LEDGER_DOCUMENTS = 1 << 16  # how many documents of a source a ledger spans: 2 MB at most
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
    """What reading a source tells of it.

    Attributes:
      index: its index in the corpus.
      documents: their number, duplicates included.
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
      folder: where all ledgers are.
      source: the source's index.
      number: the ledger's number in the source (see `ledger_at`).
      entries: (place, digest, chars) of each document that stays, in any order.
      settings: they draw the split.
    """
    ledger = [
        (place, digest, chars, SPLITS.index(split_of_digest(digest, settings)), -1)
        for place, digest, chars in sorted(entries)
    ]
    save(_path(folder, source, number), np.array(ledger, LEDGER_ENTRY))


def _path(folder: Path, source: int, number: int) -> Path:
    return folder / f"ledger-{source}-{number}"


def ledgers(folder: Path, summary: SourceSummary) -> Iterator[Path]:
    """Yields the ledgers of a source in order; a stretch of which nothing stays has none."""
    for number in range(-(-summary.documents // LEDGER_DOCUMENTS)):
        path = _path(folder, summary.index, number)
        if path.exists():
            yield path


def entries_of(folder: Path, summary: SourceSummary) -> Iterator[tuple[int, int, str, int]]:
    """Yields (place, digest, split, block) of each document of a source that stays, in order."""
    for path in ledgers(folder, summary):
        for place, digest, _, split, block in load(path).tolist():
            yield place, digest, SPLITS[split], block


def assign_blocks(folder: Path, summaries: Sequence[SourceSummary]) -> IncomingDocuments:
    """Notes in the ledgers to which block each document belongs; returns what came in.

    Args:
      folder: where the ledgers are.
      summaries: those of all sources, in order.
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
    """Writes a value, whole or not at all; the last of several writers counts."""
    with replacing(path) as temporary:
        temporary.write_bytes(pickle.dumps(value))


def load(path: Path) -> Any:
    """Returns what `save` wrote; only for files of this run."""
    return pickle.loads(path.read_bytes())
