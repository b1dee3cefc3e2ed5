"""Bag-of-words baseline for sentence objectives, which a model must beat to show understanding.

    python benchmarks/bag_of_words.py --config configs/small.py --config.data.path=data/small

A logistic regression on which pieces are in A and which in B, and on the first two and the last
but one of each, fitted by AdaGrad on the pairs of one epoch's rows and tested on pairs of the
last of them that it has not seen. Prints a JSON object a round through the pairs, and appends it
to --output.
"""

import argparse
import dataclasses
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, record
from support.pieces import NUM_SPECIAL

from albert_jax.config import Config
from albert_jax.config.load import load_config
from albert_jax.data.row_reader import open_rows
from albert_jax.train import make_experiment

_ROWS = 512  # a batch
_HELD_OUT = 0.08
_RATE = 0.05
_ROUNDS = 3


def read_batches(config: Config, batches: int) -> Iterator[Any]:
    """The run's first batches, hardly masked.

    Raises:
      ValueError: there are not so many rows; in the next epoch, pairs held out would have been
        learnt from.
    """
    if batches * _ROWS > len(open_rows(config.data.path, "train")):
        raise ValueError(f"batches {batches}: more than one epoch; pass fewer --batches")
    data = dataclasses.replace(config.data, mask_rate=0.01)
    train = dataclasses.replace(config.train, batch_size=_ROWS)
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(
            dataclasses.replace(config, data=data, train=train), Path(folder) / "run"
        )
        stream = experiment.train_batches(0)
        yield from itertools.islice(stream, batches)
        stream.close()


def features_of(ids: np.ndarray, types: np.ndarray, vocab_size: int) -> np.ndarray:
    """The features that a pair [CLS] A [SEP] B [SEP] has, as numbers below 8 * vocab_size."""
    a, b = (ids[(types == side) & (ids >= NUM_SPECIAL)] for side in (0, 1))
    groups = np.unique(a), np.unique(b), a[:1], b[:1], a[1:2], b[1:2], a[-2:-1], b[-2:-1]
    return np.concatenate([group + i * vocab_size for i, group in enumerate(groups)])


def read_pairs(batch: dict[str, Any], vocab_size: int) -> Iterator[tuple[np.ndarray, float]]:
    """(features, label) of each pair that has a sentence loss."""
    arrays = {name: np.asarray(array) for name, array in batch.items()}
    for row, chunk in zip(*np.nonzero(arrays["sentence_weights"]), strict=True):
        segments = arrays["segment_ids"][row]
        inside = segments == segments[arrays["cls_positions"][row, chunk]]
        ids, types = (arrays[name][row][inside] for name in ("input_ids", "token_type_ids"))
        yield features_of(ids, types, vocab_size), float(arrays["sentence_labels"][row, chunk])


def fit(pairs: list[tuple[np.ndarray, float]], features: int) -> Iterator[tuple[float, float]]:
    """Accuracies of each round: on the pairs learnt from, as they came, and on those held out."""
    weights, squares = np.zeros(features), np.full(features, 1e-8)
    count = round(len(pairs) * (1 - _HELD_OUT))
    rng = np.random.default_rng(0)
    for _ in range(_ROUNDS):
        right = 0
        for i in rng.permutation(count):
            found, label = pairs[i]
            error = 1 / (1 + np.exp(-weights[found].sum())) - label
            right += abs(error) < 0.5
            squares[found] += error**2
            weights[found] -= _RATE * error / np.sqrt(squares[found])
        held_out = [(weights[found].sum() > 0) == label for found, label in pairs[count:]]
        yield right / count, float(np.mean(held_out))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What a bag of words makes of sentence pairs.")
    parser.add_argument("--config", required=True, help="as for albert_jax.train")
    parser.add_argument("--batches", type=int, default=160, help=f"of {_ROWS} rows")
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    args, overrides = parser.parse_known_args()
    config = load_config(args.config, overrides)
    vocab_size = config.model.vocab_size
    pairs = [
        pair
        for batch in read_batches(config, args.batches)
        for pair in read_pairs(batch, vocab_size)
    ]
    for turn, (learnt, held_out) in enumerate(fit(pairs, 8 * vocab_size), start=1):
        found = {
            "command": " ".join(sys.argv),
            **describe(),
            "objective": config.data.sentence_objective,
            "pairs": len(pairs),
            "round": turn,
            "accuracy_learnt": round(float(learnt), 4),
            "accuracy_held_out": round(held_out, 4),
        }
        record(found, args.output)


if __name__ == "__main__":
    main()
