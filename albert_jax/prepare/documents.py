"""Selection of documents: numbers, duplicates, splits and blocks."""

import hashlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from albert_jax.prepare.corpus import Corpus, Document
from albert_jax.prepare.row_builder import NumberedDocument
from albert_jax.prepare.sentences import split_sentences
from albert_jax.prepare.settings import Settings

SPLITS = ("train", "validation")

# Work is distributed in blocks of about this much text: large enough to fill rows well, small
# enough to hold a few blocks per process in memory.
BLOCK_CHARS = 4 << 20


def content_digest(document: Document) -> int:
    """Returns a 64-bit hash of the document's text."""
    text = "\n".join(document.paragraphs).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def split_of(document: Document, digest: int, settings: Settings) -> str:
    """Returns the split of a document: by its source if the validation text has its own."""
    if settings.first_validation_source is None:
        return split_of_digest(digest, settings)
    return SPLITS[document.source >= settings.first_validation_source]


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
    is_divided: bool = False  # whether the only document is in both splits
    languages: Counter[str] = field(default_factory=Counter)  # of a document split here

    def blocks(
        self, corpus: Corpus, settings: Settings, seen: SeenDigests
    ) -> Iterator[tuple[str, list[NumberedDocument]]]:
        """Yields (split, documents) blocks of about `BLOCK_CHARS`, each of one split."""
        waiting: dict[str, list[NumberedDocument]] = {split: [] for split in SPLITS}
        block_ends = BlockEnds()
        for split, document in self._split(self._new(corpus, settings, seen), settings):
            waiting[split].append(document)
            if block_ends.after(split, sum(map(len, document.paragraphs))):
                yield split, waiting[split]
                waiting[split] = []
        yield from ((split, documents) for split, documents in waiting.items() if documents)

    def _new(
        self, corpus: Corpus, settings: Settings, seen: SeenDigests
    ) -> Iterator[tuple[str, NumberedDocument]]:
        """Yields documents that are not duplicates, each with its split."""
        for document in corpus:
            number = self.documents
            self.documents += 1
            self.per_source.setdefault(document.source, [number, 0])[1] += 1
            digest = content_digest(document)
            if settings.keep_duplicates or seen.add(digest):
                yield (
                    split_of(document, digest, settings),
                    NumberedDocument(number, digest, document.paragraphs, document.is_sentences),
                )
            else:
                self.duplicates += 1

    def _split(
        self, documents: Iterator[tuple[str, NumberedDocument]], settings: Settings
    ) -> Iterator[tuple[str, NumberedDocument]]:
        """Yields the documents as they are, but a single one in two parts, one for each split."""
        first = list(itertools.islice(documents, 2))
        if len(first) != 1 or settings.first_validation_source is not None:
            yield from itertools.chain(first, documents)
            return
        ((_, document),) = first
        sentences = document.paragraphs
        if not document.is_sentences:
            language = settings.rows.language_of(sentences)
            self.languages[language] += 1
            sentences = split_sentences(sentences, language)
        cut = len(sentences) - max(1, round(settings.validation_fraction * len(sentences)))
        self.is_divided = cut > 0
        for split, part in zip(SPLITS, (sentences[:cut], sentences[cut:]), strict=True):
            yield split, document._replace(paragraphs=part, is_sentences=True)
