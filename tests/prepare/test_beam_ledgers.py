"""Ledgers give the blocks and shards that reading the corpus in order gives."""

import json
from collections import Counter

import pytest
from support.texts import write_corpus

from albert_jax.prepare import beam_ledgers as ledgers
from albert_jax.prepare import documents as incoming
from albert_jax.prepare import row_writer
from albert_jax.prepare.beam_ledgers import (
    SourceSummary,
    assign_blocks,
    entries_of,
    ledger_at,
    write_ledger,
)
from albert_jax.prepare.corpus import Corpus, read_documents
from albert_jax.prepare.documents import IncomingDocuments, SeenDigests, content_digest
from albert_jax.prepare.row_writer import plan_shards
from albert_jax.prepare.settings import RowSettings, Settings


@pytest.mark.parametrize("ledger_documents", [7, 1000])
def test_blocks_are_those_of_the_stream(ledger_documents, tmp_path, monkeypatch):
    monkeypatch.setattr(incoming, "BLOCK_CHARS", 5_000)
    monkeypatch.setattr(ledgers, "LEDGER_DOCUMENTS", ledger_documents)
    text = write_corpus(tmp_path / "a.jsonl").read_text()
    (tmp_path / "b.jsonl").write_text("")
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "One more."}) + "\n" + text)
    corpus = Corpus([tmp_path])
    settings = Settings(RowSettings(64), validation_fraction=0.2)
    streamed, seen = IncomingDocuments(), SeenDigests(tmp_path / "seen")
    blocks = list(streamed.blocks(corpus, settings, seen))
    seen.close()

    folder = tmp_path / "ledgers"
    folder.mkdir()
    first_of: dict[int, tuple[int, int]] = {}
    entries: dict[tuple[int, int], list] = {}
    summaries = []
    for index, source in enumerate(corpus.sources):
        documents = list(read_documents(index, source))
        summaries.append(SourceSummary(index, len(documents), source.sha256, Counter()))
        for place, document in enumerate(documents):
            digest = content_digest(document)
            if first_of.setdefault(digest, (index, place)) == (index, place):
                entry = (place, digest, document.chars)
                entries.setdefault((index, ledger_at(place)), []).append(entry)
    for (source, number), own in entries.items():
        write_ledger(folder, source, number, own[::-1], settings)
    assert assign_blocks(folder, summaries) == streamed

    found: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for summary in summaries:
        for place, digest, split, block in entries_of(folder, summary):
            number = streamed.per_source[summary.index][0] + place
            found.setdefault((split, block), []).append((number, digest))
    numbers = Counter()
    for split, documents in blocks:
        assert found.pop((split, numbers[split])) == [(d.number, d.digest) for d in documents]
        numbers[split] += 1
    assert not found
    assert min(numbers.values()) > 2


@pytest.mark.parametrize(
    ("lengths", "experiment"),
    [
        ([], []),
        ([0, 0], []),
        ([2, 1], [[(0, 0, 2), (1, 0, 1)]]),
        ([2, 0, 8], [[(0, 0, 2), (2, 0, 1)], [(2, 1, 4)], [(2, 4, 7)], [(2, 7, 8)]]),
    ],
)
def test_shards_are_filled_in_order(lengths, experiment, monkeypatch):
    monkeypatch.setattr(row_writer, "ROWS_PER_SHARD", 3)
    assert plan_shards(lengths) == experiment
