"""Times the search for translations, beside transformers' `generate` on the same weights.

    python benchmarks/decoding.py --checkpoint runs/ende --input data/multi30k/test_2016_flickr.en

The model must be of BERT's shape, which transformers can run. Both get the same ids, in batches
of sentences of like length, and write equally many tokens: the translations must be the same.
Rounds alternate. Prints one JSON object for each beam and batch size, and appends it to --output.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from machine import describe, record

import albert_jax
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.read import AVERAGE, read
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.tasks.batching import eval_batches
from albert_jax.tasks.examples import PairExample
from albert_jax.tasks.features import FeatureRow
from albert_jax.tasks.translation import Translation

Translate = Callable[[FeatureRow], np.ndarray]


def ours(model: FinetunedModel, beam: int) -> Translate:
    """Returns a function from a batch to the ids of its translations."""
    task: Any = model.task
    search = model._compiled(
        lambda network, batch: {"ids": task.search(network, batch, beam).ids[:, 0]}
    )

    def translate(batch: FeatureRow) -> np.ndarray:
        sources = {name: a for name, a in batch.items() if name != "weights"}
        return search(sources)["ids"]

    return translate


def theirs(model: Any, beam: int, power: float, longest: int) -> Translate:
    """Returns the same by transformers."""

    def translate(batch: FeatureRow) -> np.ndarray:
        width = batch["input_ids"].shape[1]
        with torch.inference_mode():
            return model.generate(
                torch.tensor(batch["input_ids"]).long(),
                attention_mask=torch.tensor(batch["attention_mask"]).long(),
                num_beams=beam,
                length_penalty=power,
                max_length=min(longest, 2 * width) + 1,
                do_sample=False,
            ).numpy()[:, 1:]

    return translate


def tokens_in(ids: np.ndarray, end: int) -> list[list[int]]:
    """Returns the tokens of each row, up to the one that ends it."""
    rows = ids.tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def measure(
    model: FinetunedModel, peer: Any, sentences: list[str], beam: int, size: int, rounds: int
) -> dict[str, Any]:
    """Returns tokens per second of both, and how many translations are the same."""
    task: Any = model.task
    assert isinstance(task, Translation)
    config, end = task.config, model.tokenizer.special.sep
    examples = [PairExample(str(i), text, None) for i, text in enumerate(sentences)]
    rows = task.features(examples, model.tokenizer).rows
    batches = [batch for _, batch in eval_batches(rows, size, config.max_length)]
    runs = {
        "ours": ours(model, beam),
        "transformers": theirs(peer, beam, config.translation.length_penalty, config.max_length),
    }
    found = {
        name: [
            ids
            for batch in batches
            for ids in tokens_in(run(batch), end)[: int(batch["weights"].sum())]  # no filling
        ]
        for name, run in runs.items()
    }  # compiles, too
    tokens = sum(map(len, found["ours"]))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            for batch in batches:
                run(batch)
            seconds[name].append(time.perf_counter() - start)
    same = sum(a == b for a, b in zip(*found.values(), strict=True))
    rates = {name: tokens / statistics.median(times) for name, times in seconds.items()}
    return {
        "beam": beam,
        "batch": size,
        "sentences": len(sentences),
        "same_translations": same,
        **{f"{name}_tokens_per_second": rate for name, rate in rates.items()},
        "ratio": rates["ours"] / rates["transformers"],
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--input", required=True, type=Path, help="sentences, one per line")
    parser.add_argument("--average", type=int, default=1, help=AVERAGE)
    parser.add_argument("--sentences", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("decoding.jsonl"))
    args = parser.parse_args()
    model = albert_jax.load(args.checkpoint, average=args.average)
    sentences = args.input.read_text("utf-8").splitlines()[: args.sentences]
    with tempfile.TemporaryDirectory() as folder:
        write_hf(read(args.checkpoint, average=args.average), Path(folder))
        peer = transformers.EncoderDecoderModel.from_pretrained(folder).eval()
    for size in (1, 32):
        for beam in (1, 5):
            found = measure(model, peer, sentences, beam, size, args.rounds)
            record({"command": " ".join(sys.argv), **describe(), **found}, args.output)


if __name__ == "__main__":
    main()
