"""The command `python -m albert_jax.predict.index`: makes a collection of documents searchable."""

import argparse
import os
import sys
from collections.abc import Sequence

import jax

from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import user_path
from albert_jax.predict.retrieval.index import build_index
from albert_jax.prepare.formats import FORMATS
from albert_jax.prepare.sentences import AUTO


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.predict.index",
        description="Cuts documents into passages and indexes their words, or their vectors.",
        epilog="Then ask: albert-jax predict.ask --checkpoint RUN --index DIR --question TEXT.",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files, folders, globs, tfds:NAME; text, Markdown, JSON, Parquet, Arrow, "
        "WikiExtractor output, compressed or not",
    )
    parser.add_argument("--output", required=True, type=user_path, help="the folder to create")
    parser.add_argument(
        "--passage_words", type=int, default=100, help="most words of a passage (default: 100)"
    )
    parser.add_argument(
        "--language", default=AUTO, help="code whose rules split sentences (default: auto)"
    )
    parser.add_argument(
        "--stop_words", help="code whose most frequent words are left out, such as en"
    )
    parser.add_argument(
        "--embedder", help="a model whose vectors of passages are indexed in place of words"
    )
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="of the files")
    parser.add_argument("--text_field", default="text", help="JSON or TFDS field with the text")
    parser.add_argument("--data_dir", help="the folder of TFDS data sets")
    args = parser.parse_args(argv)
    if not args.embedder and not os.environ.get("JAX_PLATFORMS"):
        jax.config.update("jax_platforms", "cpu")  # bm25s starts JAX; accelerators are for others
    try:
        counts = build_index(
            args.input,
            args.output,
            args.passage_words,
            args.language,
            args.stop_words,
            args.embedder,
            args.format,
            args.text_field,
            args.data_dir,
        )
    except USER_ERRORS as error:
        return fail(error)
    cut = counts.pop("passages_cut", 0)
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    print(f"{args.output}: {said}")
    if cut:
        print(
            f"{cut:,} passages have more tokens than the embedder takes, and their ends cannot be "
            "found; lower --passage_words, or train it with a larger task.max_length"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
