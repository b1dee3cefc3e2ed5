"""Rows made with Apache Beam, on many machines; the same rows as `prepare` makes on one.

Three jobs, and between them what needs the corpus in its order but little work:

1. Each source is read. Of a document only hash, place and length go on; of equal hashes the
   first place stays. What stays is noted in ledgers. These, read in order, give the blocks.
2. Each source is read again. The documents of a block meet, and become its rows. How many each
   block has gives the shards.
3. Each shard is written, from the blocks that hold its rows.

The machines share a folder. A worker holds a document, a ledger or a block at a time; the process
that starts the jobs holds a ledger at a time, and some numbers for each source and block.
"""

import itertools
import os
import pickle
import shutil
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam  # pyright: ignore[reportMissingImports]
import numpy as np
from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
    PipelineOptions,
)

from albert_jax.data import row_writer
from albert_jax.data.corpus import Corpus, documents_of
from albert_jax.data.intake import SPLITS, BlockEnds, Intake, content_digest, split_of
from albert_jax.data.row_writer import SplitShards, open_shard, serialize, shard_path
from albert_jax.data.rows import NumberedDocument, RowBuilder, RowCounts
from albert_jax.data.settings import RowSettings, Settings
from albert_jax.data.sources import Source
from albert_jax.tokenizer import Tokenizer

LEDGER_DOCUMENTS = 1 << 16  # how many places of a source a ledger spans: 2 MB at most
LEDGER_ENTRY = np.dtype(
    [
        ("place", np.int64),  # in the source
        ("digest", np.uint64),
        ("chars", np.int64),
        ("split", np.int8),  # index into SPLITS
        ("block", np.int64),  # in the split; known between the first two jobs
    ]
)


class Tally(NamedTuple):
    """What the first job tells of a source.

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


class RowRange(NamedTuple):
    """Rows [first, last) of a block."""

    block: int
    first: int
    last: int


class BeamRows:
    """Makes all rows with Beam; a `prepare.WriteRows`."""

    def __init__(self, beam_options: Sequence[str]):
        """Takes Beam's own options, as `--runner=FlinkRunner`."""
        self._options = list(beam_options)

    def __call__(
        self, folder: Path, corpus: Corpus, settings: Settings, tokenizer: Tokenizer
    ) -> tuple[Intake, dict[str, RowCounts], list[SplitShards]]:
        """Makes the rows and writes their shards; see `prepare.WriteRows`."""
        scratch = folder / "scratch"
        scratch.mkdir()
        with self._job() as job:
            survey(job, corpus, settings, scratch)
        tallies: list[Tally] = sorted(_load(scratch / "tallies"))
        for source, tally in zip(corpus.sources, tallies, strict=True):
            source.sha256, source.counts = tally.sha256, tally.counts
        intake = take_in(tallies, kept=assign_blocks(tallies, scratch))
        if not intake.documents:
            raise corpus.no_text()
        _say(f"{intake.documents:,} documents, {intake.duplicates:,} of them duplicates")
        builder = BuildBlock(scratch, tokenizer.path, settings.rows)
        with self._job() as job:
            make_blocks(job, corpus, tallies, intake, builder, scratch)
        counts = {s: RowCounts(np.zeros(tokenizer.vocab_size, np.int64)) for s in SPLITS}
        counts |= dict(_load(scratch / "counts"))
        _say(f"{sum(c.rows for c in counts.values()):,} rows")
        plan = plan_shards(_load(scratch / "lengths"))
        with self._job() as job:
            write_shards(job, plan, folder, scratch)
        sizes = dict(_load(scratch / "sizes"))
        shutil.rmtree(scratch)
        return intake, counts, [_described(split, plan, sizes) for split in SPLITS]

    def _job(self) -> Any:
        return beam.Pipeline(options=PipelineOptions(self._options))


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# ---- first job: which documents stay ----


def survey(job: Any, corpus: Corpus, settings: Settings, scratch: Path) -> None:
    """Writes a ledger of each stretch of documents that stay, and all tallies."""
    found = (
        job
        | "sources" >> beam.Create(list(enumerate(corpus.sources)))
        | "spread" >> beam.Reshuffle()
        | "read" >> beam.ParDo(Survey()).with_outputs("tallies", main="places")
    )
    places = found.places
    if not settings.keep_duplicates:
        places |= "first of equal ones" >> beam.CombinePerKey(min)
    _ = (
        places
        | "by ledger" >> beam.MapTuple(ledger_of)
        | "ledgers" >> beam.GroupByKey()
        | "write" >> beam.Map(write_ledger, settings, scratch)
    )
    _ = found.tallies | "tallies" >> Gather(scratch / "tallies")


class Survey(beam.DoFn):
    """Yields (digest, (source, place, chars)) of each document of a source, and its tally."""

    def process(self, element: tuple[int, Source]) -> Iterator[Any]:
        """Reads one source."""
        index, source = element
        documents = 0
        for document in documents_of(index, source):
            digest = content_digest(document).to_bytes(8, "little")
            yield digest, (index, documents, document.chars)
            documents += 1
        tally = Tally(index, documents, source.sha256, Counter(source.counts))
        yield beam.pvalue.TaggedOutput("tallies", tally)


def ledger_of(digest: bytes, where: tuple[int, int, int]) -> tuple[Any, tuple[int, bytes, int]]:
    """Returns ((source, ledger), (place, digest, chars))."""
    source, place, chars = where
    return (source, place // LEDGER_DOCUMENTS), (place, digest, chars)


def write_ledger(
    element: tuple[tuple[int, int], Iterable[tuple[int, bytes, int]]],
    settings: Settings,
    scratch: Path,
) -> None:
    """Writes a ledger, in order of the places."""
    which, entries = element
    ledger = []
    for place, digest_bytes, chars in sorted(entries):
        digest = int.from_bytes(digest_bytes, "little")
        ledger.append((place, digest, chars, SPLITS.index(split_of(digest, settings)), -1))
    _save(_ledger(scratch, *which), np.array(ledger, LEDGER_ENTRY))


def _ledger(scratch: Path, source: int, number: int) -> Path:
    return scratch / f"ledger-{source}-{number}"


def ledgers(tally: Tally, scratch: Path) -> Iterator[Path]:
    """Yields the ledgers of a source in order; where no document stays there is none."""
    for number in range(-(-tally.documents // LEDGER_DOCUMENTS)):
        path = _ledger(scratch, tally.index, number)
        if path.exists():
            yield path


def assign_blocks(tallies: Sequence[Tally], scratch: Path) -> int:
    """Notes in the ledgers to which block each document belongs; returns how many stay."""
    ends, blocks, kept = BlockEnds(), [0] * len(SPLITS), 0
    for path in itertools.chain.from_iterable(ledgers(tally, scratch) for tally in tallies):
        ledger = _load(path)
        numbers = []
        for split, chars in ledger[["split", "chars"]].tolist():
            numbers.append(blocks[split])
            blocks[split] += ends.after(SPLITS[split], chars)
        ledger["block"] = numbers
        _save(path, ledger)
        kept += len(ledger)
    return kept


def take_in(tallies: Sequence[Tally], kept: int) -> Intake:
    """Returns what came in."""
    numbers = itertools.accumulate((t.documents for t in tallies), initial=0)
    firsts = dict(zip((t.index for t in tallies), numbers, strict=False))
    documents = sum(t.documents for t in tallies)
    per_source = {t.index: [firsts[t.index], t.documents] for t in tallies if t.documents}
    return Intake(documents, documents - kept, per_source)


# ---- second job: rows ----


def make_blocks(
    job: Any,
    corpus: Corpus,
    tallies: Sequence[Tally],
    intake: Intake,
    builder: "BuildBlock",
    scratch: Path,
) -> None:
    """Writes the rows of each block, their counts, and how many rows each block has."""
    sources = [
        (corpus.sources[tally.index], tally, intake.per_source[tally.index][0])
        for tally in tallies
        if tally.documents
    ]
    built = (
        job
        | "sources" >> beam.Create(sources)
        | "spread" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(placed, scratch)
        | "blocks" >> beam.GroupByKey()
        | "build" >> beam.ParDo(builder).with_outputs("lengths", main="counts")
    )
    _ = built.counts | beam.CombinePerKey(total) | "counts" >> Gather(scratch / "counts")
    _ = built.lengths | "lengths" >> Gather(scratch / "lengths")


def placed(
    element: tuple[Source, Tally, int], scratch: Path
) -> Iterator[tuple[tuple[str, int], tuple]]:
    """Yields ((split, block), fields of a `NumberedDocument`) of each document that stays."""
    source, tally, first = element
    entries = (entry for path in ledgers(tally, scratch) for entry in _load(path).tolist())
    entry = next(entries, None)
    for place, document in enumerate(documents_of(tally.index, source)):
        if entry is None:
            return
        if entry[0] == place:
            _, digest, _, split, block = entry
            numbered = (first + place, digest, document.paragraphs, document.is_sentences)
            yield (SPLITS[split], block), numbered
            entry = next(entries, None)


class BuildBlock(beam.DoFn):
    """Writes the rows of a block; yields their counts, and their number as "lengths"."""

    def __init__(self, scratch: Path, tokenizer_file: Path, settings: RowSettings):
        self._scratch, self._tokenizer_file, self._settings = scratch, tokenizer_file, settings
        self._build: Any = None

    def setup(self) -> None:
        """Loads the tokenizer, once a worker."""
        self._build = RowBuilder(str(self._tokenizer_file), self._settings)

    def process(self, element: tuple[tuple[str, int], Iterable[tuple]]) -> Iterator[Any]:
        """Makes the rows of one block."""
        (split, block), documents = element
        rows, counts = self._build([NumberedDocument(*fields) for fields in sorted(documents)])
        _save(_block(self._scratch, split, block), [serialize(row) for row in rows])
        yield split, counts
        yield beam.pvalue.TaggedOutput("lengths", ((split, block), len(rows)))


def _block(scratch: Path, split: str, block: int) -> Path:
    return scratch / f"block-{split}-{block}"


def total(parts: Iterable[RowCounts]) -> RowCounts | None:
    """Returns the sum of counts, None of none."""
    result = None
    for part in parts:
        if result is None:
            result = RowCounts(np.zeros_like(part.histogram))
        result.add(part)
    return result


# ---- third job: shards ----


def plan_shards(
    lengths: Sequence[tuple[tuple[str, int], int]],
) -> dict[tuple[str, int], list[RowRange]]:
    """Returns which rows each (split, shard) takes, given the rows of each (split, block)."""
    plan: dict[tuple[str, int], list[RowRange]] = {}
    written = dict.fromkeys(SPLITS, 0)
    for (split, block), rows in sorted(lengths):
        first = 0
        while first < rows:
            shard, done = divmod(written[split], row_writer.ROWS_PER_SHARD)
            last = min(rows, first + row_writer.ROWS_PER_SHARD - done)
            plan.setdefault((split, shard), []).append(RowRange(block, first, last))
            written[split] += last - first
            first = last
    return plan


def write_shards(job: Any, plan: dict, folder: Path, scratch: Path) -> None:
    """Writes all shards, and their sizes."""
    _ = (
        job
        | "shards" >> beam.Create(list(plan.items()))
        | "spread" >> beam.Reshuffle()
        | "write" >> beam.Map(write_shard, folder, scratch)
        | "sizes" >> Gather(scratch / "sizes")
    )


def write_shard(
    element: tuple[tuple[str, int], Sequence[RowRange]], folder: Path, scratch: Path
) -> tuple[tuple[str, int], int]:
    """Writes a shard; returns ((split, shard), its size in bytes)."""
    (split, shard), ranges = element
    size = 0
    path = shard_path(folder, split, shard)
    unfinished = _unfinished(path)
    writer = open_shard(unfinished)
    for block, first, last in ranges:
        for record in _load(_block(scratch, split, block))[first:last]:
            writer.write(record)
            size += len(record)
    writer.close()
    unfinished.replace(path)
    return (split, shard), size


def _described(split: str, plan: dict, sizes: dict[tuple[str, int], int]) -> SplitShards:
    mine = sorted(which for which in plan if which[0] == split)
    lengths = [sum(r.last - r.first for r in plan[which]) for which in mine]
    return SplitShards(split, lengths, sum(sizes[which] for which in mine))


# ---- files between the jobs ----


class Gather(beam.PTransform):
    """Puts all elements, few and small, into one list in a file."""

    def __init__(self, path: Path):
        super().__init__()
        self._path = path

    def expand(self, elements: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Applies the transform."""
        path = self._path
        return (
            elements
            | beam.Map(lambda element: (None, element))
            | beam.GroupByKey()
            | beam.MapTuple(lambda _, gathered: _save(path, list(gathered)))
        )


def _unfinished(path: Path) -> Path:
    # Beam may start the same work twice; each writes its own file, and the last one counts.
    return path.with_name(f"{path.name}.{os.getpid()}.{uuid.uuid4().hex}")


def _save(path: Path, value: Any) -> None:
    unfinished = _unfinished(path)
    unfinished.write_bytes(pickle.dumps(value))
    unfinished.replace(path)


def _load(path: Path) -> Any:
    return pickle.loads(path.read_bytes())
