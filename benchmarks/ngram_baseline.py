"""N-gram baseline for masked LM, which a model must beat to show that it uses wide contexts.

    python benchmarks/ngram_baseline.py --config configs/tiny.py

Counts a run's training rows, and predicts the masks of its held-out rows, the same ones that the
run is evaluated on. Prints a JSON object, and appends it to --output.
"""

import argparse
import sys
from pathlib import Path

from machine import describe, record

from albert_jax.config.load import load_config
from albert_jax.tasks.ngram_baseline import ngram_baseline


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="What counting n-grams makes of masked tokens.")
    parser.add_argument("--config", required=True, help="as for albert_jax.train")
    parser.add_argument("--limit", type=int, default=20_000_000, help="tokens to count at most")
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    args, overrides = parser.parse_known_args()
    data = load_config(args.config, overrides).data
    found = ngram_baseline(data, args.limit)
    record({"command": " ".join(sys.argv), **describe(), **found._asdict()}, args.output)


if __name__ == "__main__":
    main()
