"""Corpus to rows: `python -m albert_jax.prepare --input X --output DIR`.

Reads text once (twice when it also trains a vocabulary), splits it into sentences and pieces,
packs chunks of whole sentences into rows of fixed length and writes a TFDS data set on
ArrayRecord, with the tokenizer and a manifest beside it. The same input and settings give the
same rows, whatever the number of processes. The output appears whole or not at all.
"""

import argparse
import collections
import contextlib
import glob
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from albert_jax.data.corpus import FORMATS, Corpus, Document, worker_pool
from albert_jax.data.rows import (
    Block,
    NumberedDocument,
    RowBuilder,
    RowSettings,
    features,
    max_chunks,
    split_sentences,
)
from albert_jax.tokenizer import Tokenizer, train_tokenizer

DATASET_NAME = "albert_rows"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.model"
SPLITS = ("train", "validation")
DEFAULT_VOCAB_SIZE = 30_000  # Source: arXiv:1909.11942, section 4.1

# Work is handed out in blocks of about this much text: enough documents to fill rows well, little
# enough to hold a few blocks per process in memory.
BLOCK_CHARS = 4 << 20
# Rows per file: about 100 MB at 512 slots.
ROWS_PER_SHARD = 100_000
# A vocabulary is trained on at most this much text; SentencePiece needs about 20 times as much
# memory. Unigram statistics change little beyond it.
TRAINING_CHARS = 64 << 20


@dataclass(frozen=True)
class Settings:
    """What determines the output besides the input; see the command line for each.

    `tokenizer_sha256` is None where a vocabulary of `vocab_size` is trained.
    """

    rows: RowSettings
    format: str
    text_field: str
    validation_fraction: float
    keep_duplicates: bool
    vocab_size: int
    tokenizer_sha256: str | None

    def __post_init__(self):
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction {self.validation_fraction}: must be between 0 and 1"
            )

    def as_dict(self) -> dict[str, Any]:
        """Returns one flat dict for the manifest."""
        settings = asdict(self)
        return settings.pop("rows") | settings


# ---- documents ----


def content_digest(document: Document) -> int:
    """Returns a 64-bit hash of the document's text."""
    text = "\n".join(document.paragraphs).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def split_of(digest: int, settings: Settings) -> str:
    """Returns the split a document belongs to; equal documents go to the same one."""
    seed = settings.rows.seed.to_bytes(8, "little", signed=True)
    drawn = hashlib.blake2b(digest.to_bytes(8, "little"), digest_size=8, key=seed).digest()
    in_validation = int.from_bytes(drawn, "little") < settings.validation_fraction * 2**64
    return "validation" if in_validation else "train"


class SeenDigests:
    """Digests seen so far, on disk: there may be more than fit in memory."""

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


@dataclass
class Intake:
    """What came in: counts per source, filled while documents stream by."""

    documents: int = 0
    duplicates: int = 0
    per_source: dict[int, list[int]] = field(default_factory=dict)  # first document, documents

    def blocks(
        self, corpus: Corpus, settings: Settings, seen: SeenDigests
    ) -> Iterator[tuple[str, list[NumberedDocument]]]:
        """Yields (split, documents) blocks of about `BLOCK_CHARS`, each of one split."""
        waiting: dict[str, list[NumberedDocument]] = {split: [] for split in SPLITS}
        sizes: dict[str, int] = dict.fromkeys(SPLITS, 0)
        for document in corpus:
            number = self.documents
            self.documents += 1
            self.per_source.setdefault(document.source, [number, 0])[1] += 1
            digest = content_digest(document)
            if not settings.keep_duplicates and not seen.add(digest):
                self.duplicates += 1
                continue
            split = split_of(digest, settings)
            waiting[split].append(
                NumberedDocument(number, digest, document.paragraphs, document.is_sentences)
            )
            sizes[split] += sum(map(len, document.paragraphs))
            if sizes[split] >= BLOCK_CHARS:
                yield split, waiting[split]
                waiting[split], sizes[split] = [], 0
        yield from ((split, documents) for split, documents in waiting.items() if documents)


def training_sentences(corpus: Corpus, settings: Settings) -> Iterator[str]:
    """Yields the sentences of a sample of the training documents, at most about `TRAINING_CHARS`.

    A document is in the sample if its hash is below a bar; the bar is halved whenever the sample
    grows too large. So the sample depends on the documents alone, and equal ones count once.
    """
    sample: dict[int, Document] = {}
    bar, size = 2**64, 0
    for document in corpus:
        digest = content_digest(document)
        if digest >= bar or digest in sample or split_of(digest, settings) != "train":
            continue
        sample[digest] = document
        size += sum(map(len, document.paragraphs))
        while size > TRAINING_CHARS and len(sample) > 1:
            bar //= 2
            sample = {d: document for d, document in sample.items() if d < bar}
            size = sum(len(p) for document in sample.values() for p in document.paragraphs)
    for document in sample.values():
        yield from (
            document.paragraphs if document.is_sentences else split_sentences(document.paragraphs)
        )


# ---- rows ----


class SplitWriter:
    """Writes one split's serialised rows to ArrayRecord files of `ROWS_PER_SHARD`."""

    def __init__(self, directory: Path, split: str):
        self._directory, self._split = directory, split
        self._writer: Any = None
        self.shard_lengths: list[int] = []
        self.num_bytes = 0

    def _path(self, shard: int) -> Path:
        return self._directory / f"{self._split}-{shard}.part"

    def write(self, rows: Sequence[bytes]) -> None:
        """Appends rows."""
        # TFDS's own choice for random access: one record a group.
        from array_record.python.array_record_module import ArrayRecordWriter

        for row in rows:
            if self._writer is None:
                path = self._path(len(self.shard_lengths))
                self._writer = ArrayRecordWriter(str(path), "group_size:1")
                self.shard_lengths.append(0)
            self._writer.write(row)
            self.num_bytes += len(row)
            self.shard_lengths[-1] += 1
            if self.shard_lengths[-1] == ROWS_PER_SHARD:
                self.close_shard()

    def close_shard(self) -> None:
        """Finishes the running file, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def finish(self) -> Any:
        """Gives the files their final names and returns the split's `tfds.core.SplitInfo`."""
        import tensorflow_datasets as tfds
        from etils import epath

        self.close_shard()
        info = tfds.core.SplitInfo(
            name=self._split,
            shard_lengths=self.shard_lengths,
            num_bytes=self.num_bytes,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=epath.Path(self._directory),
                dataset_name=DATASET_NAME,
                split=self._split,
                filetype_suffix="array_record",
            ),
        )
        for shard, path in enumerate(info.filepaths):
            os.rename(self._path(shard), path)
        return info


def write_dataset_info(directory: Path, splits: Sequence[Any]) -> None:
    """Writes the TFDS metadata that `tfds.builder_from_directory` reads."""
    import tensorflow_datasets as tfds

    identity = tfds.core.DatasetIdentity(
        name=DATASET_NAME,
        version=tfds.core.Version(f"{FORMAT_VERSION}.0.0"),
        data_dir=str(directory),
        module_name="albert_jax",
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=features(),
        description="Rows of packed chunks of whole sentences, for pretraining ALBERT.",
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.SplitDict(splits))
    info.write_to_directory(directory)


class Totals:
    """Sums over the blocks of one split."""

    def __init__(self, vocab_size: int):
        self.rows = self.pieces = self.used_slots = 0
        self.sentences_split = self.empty_sentences = 0
        self.histogram = np.zeros(vocab_size, np.int64)

    def add(self, block: Block) -> None:
        """Adds a block."""
        self.rows += len(block.rows)
        self.pieces += block.pieces
        self.used_slots += block.used_slots
        self.sentences_split += block.sentences_split
        self.empty_sentences += block.empty_sentences
        self.histogram += block.histogram

    def entropy(self) -> float:
        """Returns the entropy of the piece distribution in nats per piece."""
        p = self.histogram[self.histogram > 0] / self.pieces
        return float(-(p * np.log(p)).sum())


class Progress:
    """A bar on a terminal, else a line every half minute; both on standard error."""

    SECONDS = 30

    def __init__(self, corpus: Corpus, what: str):
        self._corpus, self._what = corpus, what
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=what, total=corpus.bytes_total, unit="B", unit_scale=True,
            disable=not self._terminal,
        )  # fmt: skip
        self._next = time.monotonic() + self.SECONDS

    def update(self) -> None:
        """Shows how far the corpus has been read."""
        self._bar.update(self._corpus.bytes_read - self._bar.n)
        if not self._terminal and time.monotonic() >= self._next:
            self._next += self.SECONDS
            share = self._corpus.bytes_read / max(1, self._corpus.bytes_total)
            print(f"{self._what}: {share:.0%} read", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def write_rows(
    corpus: Corpus, settings: Settings, directory: Path, num_workers: int
) -> tuple[Intake, dict[str, Totals]]:
    """Makes all rows of `corpus` and writes the TFDS data set into `directory`."""
    intake, tokenizer_file = Intake(), str(directory / TOKENIZER)
    vocab_size = Tokenizer(tokenizer_file).vocab_size
    totals = {split: Totals(vocab_size) for split in SPLITS}
    writers = {split: SplitWriter(directory, split) for split in SPLITS}
    seen_file = directory / "seen.sqlite"
    progress = Progress(corpus, "preparing")
    with (
        contextlib.closing(progress),
        contextlib.closing(SeenDigests(seen_file)) as seen,
        worker_pool(num_workers, _start_builder, (tokenizer_file, settings.rows)) as run,
    ):
        for split, block in run(_build, intake.blocks(corpus, settings, seen)):
            writers[split].write(block.rows)
            totals[split].add(block)
            progress.update()
    seen_file.unlink()
    for split in SPLITS:
        if not totals[split].rows:
            raise ValueError(
                f"validation_fraction {settings.validation_fraction}: of {intake.documents} "
                f"documents ({intake.duplicates} duplicates) none fell to the {split} split; "
                f"{'raise' if split == 'validation' else 'lower'} --validation_fraction or give "
                "more documents (a plain text file is one)"
            )
    write_dataset_info(directory, [writers[split].finish() for split in SPLITS])
    return intake, totals


_builder: RowBuilder | None = None  # one per process


def _start_builder(tokenizer_file: str, settings: RowSettings) -> None:
    global _builder
    _builder = RowBuilder(tokenizer_file, settings)


def _build(item: tuple[str, list[NumberedDocument]]) -> tuple[str, Block]:
    split, documents = item
    assert _builder is not None
    return split, _builder(documents)


# ---- the output folder ----


def fingerprint(corpus: Corpus, settings: Settings) -> str:
    """Returns a sha256 over everything that determines the rows."""
    libraries = {name: importlib.metadata.version(name) for name in ("sentencepiece", "sentencex")}
    what = {
        "format_version": FORMAT_VERSION,
        "settings": settings.as_dict(),
        "sources": [(source.format, source.sha256) for source in corpus.sources],
        "libraries": libraries,
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def already_prepared(output: Path, wanted: str) -> dict[str, Any] | None:
    """Returns the manifest of `output` if it holds what is wanted, None if there is nothing.

    Raises:
      ValueError: `output` holds something else.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return None
    way_out = "choose another --output or remove it"
    try:
        manifest = json.loads((output / MANIFEST).read_text())
        found = manifest["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"output {output}: exists and is no prepared data; {way_out}") from None
    if found != wanted:
        raise ValueError(f"output {output}: prepared from other input or settings; {way_out}")
    return manifest


@contextlib.contextmanager
def temporary_sibling(output: Path) -> Iterator[Path]:
    """Gives a folder beside `output` and removes it at the end if it is still there.

    Those left behind by killed runs for the same output are removed first.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.tmp-{socket.gethostname()}-"
    for left in output.parent.glob(f"{glob.escape(prefix)}*"):
        pid = left.name.removeprefix(prefix)
        if pid.isdigit() and (int(pid) == os.getpid() or not _alive(int(pid))):
            shutil.rmtree(left)
    folder = output.parent / f"{prefix}{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def manifest_of(
    corpus: Corpus, settings: Settings, tokenizer: Tokenizer, intake: Intake, totals: dict
) -> dict[str, Any]:
    """Returns what manifest.json says: how the rows were made, from what, and how many."""
    rows = settings.rows
    sources = []
    for i, source in enumerate(corpus.sources):
        first, count = intake.per_source.get(i, (None, 0))
        sources.append(
            {
                "path": source.path,
                "format": source.format,
                "sha256": source.sha256,
                "bytes": source.bytes,
                "first_document": first,
                "documents": count,
                **source.counts,
            }
        )
    return {
        "format_version": FORMAT_VERSION,
        "seq_len": rows.seq_len,
        "packing": rows.packing,
        "max_chunks": max_chunks(rows.seq_len) if rows.packing else 1,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha256": tokenizer.sha256,
        "rows": {split: t.rows for split, t in totals.items()},
        "documents": intake.documents,
        "duplicates_dropped": intake.duplicates,
        "pieces": {split: t.pieces for split, t in totals.items()},
        "fill": {split: t.used_slots / (t.rows * rows.seq_len) for split, t in totals.items()},
        "sentences_split": sum(t.sentences_split for t in totals.values()),
        "empty_sentences": sum(t.empty_sentences for t in totals.values()),
        "unigram_entropy": totals["train"].entropy(),
        "settings": settings.as_dict(),
        "sources": sources,
        "fingerprint": fingerprint(corpus, settings),
    }


def prepare(
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    tokenizer: str | os.PathLike | None = None,
    vocab_size: int | None = None,
    seq_len: int = 512,
    file_format: str = "auto",
    text_field: str = "text",
    validation_fraction: float = 0.005,
    short_seq_prob: float = 0.1,
    keep_duplicates: bool = False,
    packing: bool = True,
    num_workers: int | None = None,
    seed: int = 0,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Makes training rows from text; see the command line's help for the arguments.

    Returns:
      The manifest of `output`, also if it was prepared before.

    Raises:
      FileNotFoundError: an input or the tokenizer does not exist.
      ValueError: an argument, the text or an existing output does not fit.
    """
    if tokenizer is not None and vocab_size is not None:
        raise ValueError("tokenizer and vocab_size: pass one of them, not both")
    num_workers = _default_workers() if num_workers is None else num_workers
    if num_workers < 1:
        raise ValueError(f"num_workers {num_workers}: must be at least 1")
    given = None if tokenizer is None else Tokenizer(tokenizer)
    settings = Settings(
        rows=RowSettings(seq_len, packing, short_seq_prob, seed),
        format=file_format,
        text_field=text_field,
        validation_fraction=validation_fraction,
        keep_duplicates=keep_duplicates,
        vocab_size=given.vocab_size if given else vocab_size or DEFAULT_VOCAB_SIZE,
        tokenizer_sha256=given.sha256 if given else None,
    )
    output = Path(os.path.abspath(output))
    corpus = Corpus(inputs, file_format, text_field, data_dir, num_workers)
    if manifest := already_prepared(output, fingerprint(corpus, settings)):
        print(f"{output}: already prepared", file=sys.stderr)
        return manifest
    _announce(corpus)
    with temporary_sibling(output) as folder:
        if given:
            shutil.copyfile(given.path, folder / TOKENIZER)
        else:
            sentences = training_sentences(corpus, settings)
            train_tokenizer(sentences, folder / TOKENIZER, settings.vocab_size)
        intake, totals = write_rows(corpus, settings, folder, num_workers)
        used = Tokenizer(folder / TOKENIZER)
        manifest = manifest_of(corpus, settings, used, intake, totals)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        os.rename(folder, output)
    return manifest


def _default_workers() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _announce(corpus: Corpus) -> None:
    formats = collections.Counter(source.format for source in corpus.sources)
    kinds = ", ".join(f"{n} {name}" for name, n in sorted(formats.items()))
    print(f"reading {kinds}: {corpus.bytes_total / 1e6:.1f} MB", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.prepare", description="Make training rows from text."
    )
    add = parser.add_argument
    add(
        "--input",
        action="append",
        required=True,
        dest="inputs",
        metavar="X",
        help="a file, folder, glob, tfds:NAME or python-docs; may be given again",
    )
    add("--output", required=True, metavar="DIR", help="the folder to make")
    vocabulary = parser.add_mutually_exclusive_group()
    vocabulary.add_argument("--tokenizer", metavar="FILE", help="a SentencePiece model to use")
    vocabulary.add_argument(
        "--vocab_size",
        type=int,
        metavar="N",
        help=f"pieces of the vocabulary to train (default {DEFAULT_VOCAB_SIZE})",
    )
    add("--seq_len", type=int, default=512, help="slots in a row")
    add(
        "--format",
        choices=FORMATS,
        default="auto",
        dest="file_format",
        help="how to read files; auto goes by name and first line and never picks sentences",
    )
    add("--text_field", default="text", help="the JSON or TFDS field with the text")
    add("--validation_fraction", type=float, default=0.005, help="share of the documents")
    add("--short_seq_prob", type=float, default=0.1, help="share of chunks with a random length")
    add("--keep_duplicates", action="store_true", help="keep documents with equal text")
    add("--no_packing", action="store_false", dest="packing", help="one chunk a row")
    add("--num_workers", type=int, help="processes (default: one a core); changes no row")
    add("--seed", type=int, default=0, help="draws the split and the short chunks")
    add("--data_dir", help="where TFDS data sets lie (default: TFDS's own)")
    return parser  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    options = vars(_parser().parse_args(arguments))
    # As if interrupted by hand, so that the temporary folder goes away.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        manifest = prepare(options.pop("inputs"), options.pop("output"), **options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
    print(summary(manifest))
    return 0


def summary(manifest: dict[str, Any]) -> str:
    """Returns the manifest's numbers in two lines."""
    rows, fill = manifest["rows"], manifest["fill"]
    return (
        f"{manifest['documents']:,} documents ({manifest['duplicates_dropped']:,} duplicates), "
        f"{sum(manifest['pieces'].values()):,} pieces\n"
        f"{rows['train']:,} train and {rows['validation']:,} validation rows of "
        f"{manifest['seq_len']}, {fill['train']:.1%} full"
    )


if __name__ == "__main__":
    sys.exit(main())
