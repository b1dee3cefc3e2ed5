"""Makes rows with Apache Beam on many machines; the same rows as `prepare` makes on one.

There are three jobs. The steps between them need the corpus in order, but take little work:

1. Reads each source. Of a document only hash, place and length are passed on; among equal hashes
   the first place is kept. Ledgers record the kept documents; read in order, they determine the
   blocks.
2. Reads each source again, gathers the documents of each block and makes its rows. The number of
   rows in each block determines the shards.
3. Writes each shard from the blocks that hold its rows.

The machines share a folder. A worker holds one document, ledger or block at a time; the process
that starts the jobs holds one ledger at a time, and a few numbers for each source and block.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam  # pyright: ignore[reportMissingImports]
import numpy as np

from albert_jax.data.files import unfinished
from albert_jax.data.tokenizers import Tokenizer
from albert_jax.prepare.beam_ledgers import (
    SourceSummary,
    assign_blocks,
    entries_of,
    ledger_at,
    load,
    save,
    write_ledger,
)
from albert_jax.prepare.corpus import Corpus, read_documents
from albert_jax.prepare.documents import SPLITS, IncomingDocuments, content_digest
from albert_jax.prepare.row_builder import NumberedDocument, RowBuilder, RowCounts
from albert_jax.prepare.row_writer import (
    RowRange,
    SplitShards,
    open_shard,
    plan_shards,
    serialize,
    shard_path,
)
from albert_jax.prepare.settings import RowSettings, Settings
from albert_jax.prepare.sources import Source


class BeamRows:
    """Makes all rows with Beam; a `prepare.WriteRows`."""

    def __init__(self, beam_options: Sequence[str]):
        """Takes Beam's own options, such as `--runner=FlinkRunner`."""
        self._options = list(beam_options)

    def __call__(
        self, folder: Path, corpus: Corpus, settings: Settings, tokenizer: Tokenizer
    ) -> tuple[IncomingDocuments, dict[str, RowCounts], list[SplitShards]]:
        """Makes the rows and writes their shards; see `prepare.WriteRows`."""
        scratch = folder / "scratch"
        scratch.mkdir()
        with self._job() as job:
            survey(job, corpus, settings, scratch)
        summaries: list[SourceSummary] = sorted(load(scratch / "summaries"))
        for source, summary in zip(corpus.sources, summaries, strict=True):
            source.sha256, source.counts = summary.sha256, summary.counts
        incoming = assign_blocks(scratch, summaries)
        if not incoming.documents:
            raise corpus.no_text()
        _say(f"{incoming.documents:,} documents, {incoming.duplicates:,} of them duplicates")
        builder = BuildBlock(scratch, tokenizer.path, settings.rows)
        with self._job() as job:
            make_blocks(job, corpus, summaries, incoming, builder, scratch)
        counts = {str(s): RowCounts(np.zeros(tokenizer.vocab_size, np.int64)) for s in SPLITS}
        counts |= dict(load(scratch / "counts"))
        _say(f"{sum(c.rows for c in counts.values()):,} rows")
        lengths = sorted(load(scratch / "lengths"))
        plans = {s: plan_shards(rows for split, _, rows in lengths if split == s) for s in SPLITS}
        with self._job() as job:
            write_shards(job, plans, folder, scratch)
        sizes = dict(load(scratch / "sizes")) if any(plans.values()) else {}
        shutil.rmtree(scratch)
        shards = [SplitShards(s, [_rows(r) for r in plans[s]], sizes.get(s, 0)) for s in SPLITS]
        return incoming, counts, shards

    def _job(self) -> Any:
        return beam.Pipeline(argv=self._options)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


# ---- first job: which documents to keep ----


def survey(job: Any, corpus: Corpus, settings: Settings, scratch: Path) -> None:
    """Writes a ledger for each stretch of kept documents, and all summaries."""
    found = (
        job
        | "sources" >> beam.Create(list(enumerate(corpus.sources)))
        | "spread" >> beam.Reshuffle()
        | "read" >> beam.ParDo(Survey()).with_outputs("summaries", main="places")
    )
    places = found.places
    if not settings.keep_duplicates:
        places |= "first of equal ones" >> beam.CombinePerKey(min)
    _ = (
        places
        | "by ledger" >> beam.MapTuple(ledger_of)
        | "ledgers" >> beam.GroupByKey()
        | "write" >> beam.Map(write, scratch, settings)
    )
    _ = found.summaries | "summaries" >> Gather(scratch / "summaries")


class Survey(beam.DoFn):
    """Yields (digest, (source, place, chars)) of each document of a source, and its summary."""

    def process(self, element: tuple[int, Source]) -> Iterator[Any]:
        """Reads one source."""
        index, source = element
        documents = 0
        for document in read_documents(index, source):
            # As bytes, because Beam's integers are signed.
            digest = content_digest(document).to_bytes(8, "little")
            yield digest, (index, documents, document.chars)
            documents += 1
        summary = SourceSummary(index, documents, source.sha256, Counter(source.counts))
        yield beam.pvalue.TaggedOutput("summaries", summary)


def ledger_of(digest: bytes, where: tuple[int, int, int]) -> tuple[Any, tuple[int, bytes, int]]:
    """Returns ((source, ledger), (place, digest, chars))."""
    source, place, chars = where
    return (source, ledger_at(place)), (place, digest, chars)


def write(
    element: tuple[tuple[int, int], Iterable[tuple[int, bytes, int]]],
    scratch: Path,
    settings: Settings,
) -> None:
    """Writes a ledger."""
    (source, number), entries = element
    numbers = ((place, int.from_bytes(digest, "little"), n) for place, digest, n in entries)
    write_ledger(scratch, source, number, numbers, settings)


# ---- second job: rows ----


def make_blocks(
    job: Any,
    corpus: Corpus,
    summaries: Sequence[SourceSummary],
    incoming: IncomingDocuments,
    builder: "BuildBlock",
    scratch: Path,
) -> None:
    """Writes the rows of each block, their counts, and the number of rows in each block."""
    sources = [
        (corpus.sources[summary.index], summary, incoming.per_source[summary.index][0])
        for summary in summaries
        if summary.documents
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
    element: tuple[Source, SourceSummary, int], scratch: Path
) -> Iterator[tuple[tuple[str, int], tuple]]:
    """Yields ((split, block), fields of a `NumberedDocument`) for each kept document."""
    source, summary, first = element
    entries = entries_of(scratch, summary)
    next_entry = next(entries, None)
    for place, document in enumerate(read_documents(summary.index, source)):
        if next_entry is None:
            return
        kept, digest, split, block = next_entry
        if place == kept:
            numbered = (first + place, digest, document.paragraphs, document.is_sentences)
            yield (split, block), numbered
            next_entry = next(entries, None)


class BuildBlock(beam.DoFn):
    """Writes the rows of a block; yields their counts, and their number as "lengths"."""

    def __init__(self, scratch: Path, tokenizer_file: Path, settings: RowSettings):
        self._scratch, self._tokenizer_file, self._settings = scratch, tokenizer_file, settings
        self._build: Any = None

    def setup(self) -> None:
        """Loads the tokenizer, once per worker."""
        self._build = RowBuilder(str(self._tokenizer_file), self._settings)

    def process(self, element: tuple[tuple[str, int], Iterable[tuple]]) -> Iterator[Any]:
        """Makes the rows of one block."""
        (split, block), documents = element
        rows, counts = self._build([NumberedDocument(*fields) for fields in sorted(documents)])
        save(_block(self._scratch, split, block), [serialize(row) for row in rows])
        yield split, counts
        yield beam.pvalue.TaggedOutput("lengths", (split, block, len(rows)))


def _block(scratch: Path, split: str, block: int) -> Path:
    return scratch / f"block-{split}-{block}"


def total(parts: Iterable[RowCounts]) -> RowCounts | None:
    """Returns the sum of the counts; None if there are none."""
    result = None
    for part in parts:
        if result is None:
            result = RowCounts(np.zeros_like(part.histogram))
        result.add(part)
    return result


# ---- third job: shards ----


def write_shards(
    job: Any, plans: dict[str, list[list[RowRange]]], folder: Path, scratch: Path
) -> None:
    """Writes all shards, and the size of each split."""
    shards = [
        (split, number, ranges)
        for split, plan in plans.items()
        for number, ranges in enumerate(plan)
    ]
    _ = (
        job
        | "shards" >> beam.Create(shards)
        | "spread" >> beam.Reshuffle()
        | "write" >> beam.Map(write_shard, folder, scratch)
        | "sum" >> beam.CombinePerKey(sum)
        | "sizes" >> Gather(scratch / "sizes")
    )


def write_shard(
    element: tuple[str, int, Sequence[RowRange]], folder: Path, scratch: Path
) -> tuple[str, int]:
    """Writes a shard; returns its split and its size in bytes."""
    split, number, ranges = element
    size = 0
    path = shard_path(folder, split, number)
    own = unfinished(path)
    writer = open_shard(own)
    for block, first, last in ranges:
        for record in load(_block(scratch, split, block))[first:last]:
            writer.write(record)
            size += len(record)
    writer.close()
    own.replace(path)
    return split, size


def _rows(ranges: Sequence[RowRange]) -> int:
    return sum(last - first for _, first, last in ranges)


# ---- between the jobs ----


class Gather(beam.PTransform):
    """Gathers all elements, which must be few and small, into one list in a file."""

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
            | beam.MapTuple(lambda _, gathered: save(path, list(gathered)))
        )
