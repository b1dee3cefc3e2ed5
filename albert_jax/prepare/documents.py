"""Selection of documents: numbers, duplicates, splits and blocks."""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from albert_jax.prepare.corpus import Corpus, Document
from albert_jax.prepare.row_builder import NumberedDocument
from albert_jax.prepare.settings import Settings

SPLITS = ("train", "validation")

# Work is distributed in blocks of about this much text: large enough to fill rows well, small
# enough to hold a few blocks per process in memory.
BLOCK_CHARS = 4 << 20


def content_digest(document: Document) -> int:
    """Returns a 64-bit hash of the document's text."""
    text = "\n".join(document.paragraphs).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def split_of_digest(digest: int, settings: Settings) -> str:
    """Returns the split a document belongs to, the same for equal documents."""
    seed = settings.rows.seed.to_bytes(8, "little", signed=True)
    drawn = hashlib.blake2b(digest.to_bytes(8, "little"), digest_size=8, key=seed).digest()
    in_validation = int.from_bytes(drawn, "little") < settings.validation_fraction * 2**64
    return "validation" if in_validation else "train"


class SeenDigests:
    """The digests seen so far, stored on disk because there may be more than fit in memory."""

    def __init__(self, path: Path):
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE seen (digest INTEGER PRIMARY KEY)")
        self._db.execute("BEGIN")

    def add(self, digest: int) -> bool:
        """Adds a digest; returns whether it is new."""
        signed = digest - (1 << 63)  # SQLite's integers are signed
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (signed,)).rowcount == 1

    def close(self) -> None:
        """Closes the file."""
        self._db.close()


class BlockEnds:
    """Decides where blocks of about `BLOCK_CHARS` end, for each split's documents in order."""

    def __init__(self):
        self._chars: dict[str, int] = dict.fromkeys(SPLITS, 0)

    def after(self, split: str, chars: int) -> bool:
        """Returns whether the next document of `split`, of so many characters, ends a block."""
        self._chars[split] += chars
        if self._chars[split] < BLOCK_CHARS:
            return False
        self._chars[split] = 0
        return True


@dataclass
class IncomingDocuments:
    """The incoming documents, with counts per source."""

    documents: int = 0
    duplicates: int = 0
    per_source: dict[int, list[int]] = field(default_factory=dict)  # first document, documents

    def blocks(
        self, corpus: Corpus, settings: Settings, seen: SeenDigests
    ) -> Iterator[tuple[str, list[NumberedDocument]]]:
        """Yields (split, documents) blocks of about `BLOCK_CHARS`, each of one split."""
        waiting: dict[str, list[NumberedDocument]] = {split: [] for split in SPLITS}
        block_ends = BlockEnds()
        for document in corpus:
            number = self.documents
            self.documents += 1
            self.per_source.setdefault(document.source, [number, 0])[1] += 1
            digest = content_digest(document)
            if not settings.keep_duplicates and not seen.add(digest):
                self.duplicates += 1
                continue
            split = split_of_digest(digest, settings)
            waiting[split].append(
                NumberedDocument(number, digest, document.paragraphs, document.is_sentences)
            )
            if block_ends.after(split, document.chars):
                yield split, waiting[split]
                waiting[split] = []
        yield from ((split, documents) for split, documents in waiting.items() if documents)
