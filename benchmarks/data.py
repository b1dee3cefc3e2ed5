"""Times the data pipeline from text to batches on one core, by stage, and the peer's collator.

    python benchmarks/data.py --input wikipedia --tokenizer 30k-clean.model [--peer]

Prints a JSON object for each stage: its throughput in pieces per second, with its input computed
beforehand; then those of `prepare` and of the loader as a whole. --peer adds transformers'
collator for single masked tokens, on rows of the same pieces without pairs (needs torch); or, with
a vocab.txt, its fast tokenizer on the same lines. Times are CPU seconds of this process, so other
work on the machine does not count.
"""

import argparse
import contextlib
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from machine import describe, record

from albert_jax.config import DataConfig
from albert_jax.data import masking, sentence_pairs
from albert_jax.data.loader import Rows
from albert_jax.data.sampling import example_rng
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.prepare.corpus import Corpus
from albert_jax.prepare.documents import IncomingDocuments, SeenDigests
from albert_jax.prepare.pipeline import prepare
from albert_jax.prepare.row_builder import RowBuilder, split_sentences
from albert_jax.prepare.row_writer import SplitWriter
from albert_jax.prepare.settings import RowSettings, Settings

_BATCH = 32


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a second run, and what it returns; the first warms up."""
    work()
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def prepare_stages(
    inputs: list[str], vocabulary: str, seq_len: int
) -> Iterator[tuple[str, float]]:
    """(stage, CPU seconds), then ("pieces", how many)."""
    settings = Settings(rows=RowSettings(seq_len))
    tokenizer, builder = load_tokenizer(vocabulary), RowBuilder(vocabulary, settings.rows)
    with tempfile.TemporaryDirectory() as folder:

        def read() -> list[Any]:
            file = Path(folder) / "seen.sqlite"
            with contextlib.closing(SeenDigests(file)) as seen:
                blocks = list(IncomingDocuments().blocks(Corpus(inputs), settings, seen))
            file.unlink()
            return blocks

        seconds, blocks = timed(read)
        yield "read, drop duplicates", seconds
        documents = [document for _, block in blocks for document in block]
        splitting, sentences = timed(
            lambda: [s for d in documents for s in split_sentences(d.paragraphs)]
        )
        yield "split into sentences", splitting
        encoding, (pieces, _) = timed(lambda: tokenizer.encode_flat(sentences))
        yield "encode", encoding
        building, parts = timed(lambda: [builder(block)[0] for _, block in blocks])
        yield "pack into rows", building - splitting - encoding

        def write() -> None:
            writer = SplitWriter(Path(folder), "train")
            writer.write(itertools.chain(*parts))
            writer.finish()

        writing, _ = timed(write)
        yield "write", writing
        yield "pieces", float(len(pieces))


def loader_stages(config: DataConfig, rows: int) -> Iterator[tuple[str, float]]:
    """(stage, CPU seconds) for some rows, then ("pieces", slots that are filled)."""
    opened = Rows(config, "train")
    source = opened._source
    cdf = masking.ngram_cdf(config.max_ngram)
    slots = masking.num_slots(config.seq_len, config.mask_rate)

    batches = [range(first, first + _BATCH) for first in range(0, rows - _BATCH + 1, _BATCH)]

    def draws() -> list[list[np.random.Generator]]:
        return [[example_rng(0, 0, row) for row in batch] for batch in batches]

    reading, stored = timed(lambda: [[source[row] for row in batch] for batch in batches])
    yield "read rows", reading
    seeding, _ = timed(draws)
    yield "seed generators", seeding
    pairing, layouts = timed(
        lambda: [
            sentence_pairs.lay_out(
                [
                    sentence_pairs.choose_pairs(row, config.sentence_objective, rng, source)
                    for row, rng in zip(batch, rngs, strict=True)
                ],
                opened.table.special,
            )
            for batch, rngs in zip(stored, draws(), strict=True)
        ]
    )
    yield "choose and lay out pairs", pairing - seeding
    hiding, _ = timed(
        lambda: [
            masking.mask(layout, opened.table, config.mask_rate, slots, cdf, rngs)
            for layout, rngs in zip(layouts, draws(), strict=True)
        ]
    )
    yield "mask n-grams", hiding - seeding
    whole, _ = timed(
        lambda: [opened.make_batch(0, [(0, row) for row in batch]) for batch in batches]
    )
    yield "all, with batching", whole
    yield "pieces", float(sum(len(layout.input_ids) for layout in layouts))


def collator(config: DataConfig, vocabulary: str, rows: int) -> tuple[float, float]:
    """(CPU seconds, tokens) of transformers' collator."""
    import torch
    from transformers import AlbertTokenizer, DataCollatorForLanguageModeling

    torch.set_num_threads(1)
    processor = sentencepiece.SentencePieceProcessor(model_file=vocabulary)
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(len(processor))]
    collate = DataCollatorForLanguageModeling(AlbertTokenizer(vocab=pieces), mlm_probability=0.15)
    source = Rows(config, "train")._source
    stream = np.concatenate([source[row]["pieces"] for row in range(rows)])
    size = config.seq_len - 2
    filled = [
        [2, *stream[i : i + size].tolist(), 3] for i in range(0, len(stream) - size + 1, size)
    ]

    def run() -> None:
        for first in range(0, len(filled) - _BATCH + 1, _BATCH):
            collate([{"input_ids": row} for row in filled[first : first + _BATCH]])

    seconds, _ = timed(run)
    return seconds, float(len(filled) // _BATCH * _BATCH * config.seq_len)


def fast_tokenizer(inputs: list[str], vocabulary: str) -> Iterator[tuple[str, float]]:
    """(whose, CPU seconds) of encoding every line by WordPiece, then ("pieces", how many)."""
    from transformers import BertTokenizer

    texts = [line for path in inputs for line in Path(path).read_text("utf-8").splitlines()]
    ours, theirs = load_tokenizer(vocabulary), BertTokenizer(vocabulary)
    seconds, (pieces, _) = timed(lambda: ours.encode_flat(texts))
    yield "encode", seconds
    seconds, found = timed(lambda: theirs(texts, add_special_tokens=False)["input_ids"])
    yield "encode, transformers' fast tokenizer", seconds
    if list(itertools.chain.from_iterable(found)) != pieces.tolist():
        raise ValueError("the two tokenizers' ids differ")
    yield "pieces", float(len(pieces))


def lines(stages: Iterator[tuple[str, float]], what: str) -> Iterator[dict[str, Any]]:
    """An object a stage, with what it makes of a second."""
    found = dict(stages)
    pieces = found.pop("pieces")
    for stage, seconds in found.items():
        yield {
            "what": what,
            "stage": stage,
            "cpu_seconds": seconds,
            "pieces_per_second": pieces / seconds,
        }


def measure(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Everything that is printed."""
    yield describe()
    yield from lines(prepare_stages(args.input, args.tokenizer, args.seq_len), "prepare")
    with tempfile.TemporaryDirectory() as folder:
        settings = {"tokenizer": args.tokenizer, "seq_len": args.seq_len, "num_workers": 1}
        start = time.process_time()
        manifest = prepare(args.input, Path(folder) / "rows", **settings)
        seconds = time.process_time() - start
        whole = [("all, one process", seconds), ("pieces", sum(manifest["pieces"].values()))]
        yield from lines(iter(whole), "prepare")
        config = DataConfig(path=str(Path(folder) / "rows"), seq_len=args.seq_len)
        rows = min(args.rows, manifest["rows"]["train"])
        yield from lines(loader_stages(config, rows), "loader")
        if args.peer and args.tokenizer.endswith(".txt"):
            yield from lines(fast_tokenizer(args.input, args.tokenizer), "WordPiece")
        elif args.peer:
            seconds, tokens = collator(config, args.tokenizer, rows)
            yield from lines(iter([("all", seconds), ("pieces", tokens)]), "peer's collator")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Times the way from text to batches.")
    parser.add_argument("--input", action="append", required=True, help="as for prepare")
    parser.add_argument("--tokenizer", required=True, help="a SentencePiece model or a vocab.txt")
    parser.add_argument("--seq_len", type=int, default=512)
    parser.add_argument("--rows", type=int, default=4096, help="rows made into batches")
    parser.add_argument("--peer", action="store_true", help="also transformers' collator")
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    args = parser.parse_args()
    for found in measure(args):
        record(found, args.output)


if __name__ == "__main__":
    main()
