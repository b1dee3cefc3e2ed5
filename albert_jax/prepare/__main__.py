"""The command `python -m albert_jax.prepare`: converts text to rows."""

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import Any

from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.prepare.formats import FORMATS
from albert_jax.prepare.pipeline import prepare
from albert_jax.prepare.segmenters import SEGMENTERS
from albert_jax.prepare.settings import RowSettings, Settings
from albert_jax.prepare.vocabulary import TYPES

INPUTS = """\
--input may be repeated. It takes files, folders (all files below, hidden ones left out), globs,
tfds:NAME (the train split of a TFDS dataset) and python-docs (the documentation of this Python
and of JAX, SciPy and others). Files may be compressed (.gz, .bz2, .xz, .zst) and are UTF-8, or
UTF-16 or UTF-32 with its mark. The format of each file is told by its name and its first line; set
it with --format.

  text        one document per file; blank lines separate paragraphs; in .md files, headings and
              emphasis marks are removed
  sentences   one sentence per line, a blank line between documents (never picked by auto)
  wiki        WikiExtractor's <doc ...> blocks, one document each
  jsonl       one JSON object per line, text in --text_field, which may be nested (doc.text), or a
              list of paragraphs; other JSON of objects and arrays of them is read into memory
  parquet     the column --text_field, one document per row; likewise arrow (.arrow, .feather)

--validation FILES gives the validation split text of its own. Otherwise it gets a fraction of
the documents, or, of a single document, the last sentences.

Without --tokenizer, a vocabulary of --vocab_size is trained on the corpus. A model given as
--tokenizer must have ALBERT's special pieces (<pad>, <unk>, [CLS], [SEP], [MASK]; in a WordPiece
vocab.txt [PAD] and [UNK]). Text is lower-cased and loses its accents, as for English ALBERT,
unless the tokenizer_config.json beside --tokenizer, or the options, say otherwise.
--no_packing makes the paper's rows of one chunk each. The output is the same for any
--num_workers. manifest.json records what went in and what came out.

A corpus too large for one machine: python -m albert_jax.prepare.beam --help
"""


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults, and leaves the lines of texts as they are."""


def row_arguments(module: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Returns a parser of all options that determine the rows but the vocabulary; see `run`."""
    # SUPPRESS: options not given are not passed on, and the help shows only real defaults.
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        argument_default=argparse.SUPPRESS,
        formatter_class=_Formatter,
    )
    add = parser.add_argument
    add(
        "--input", action="append", required=True, dest="inputs", metavar="X",
        help="a file, folder, glob, tfds:NAME or python-docs; may be repeated",
    )  # fmt: skip
    add("--output", required=True, metavar="DIR", help="the folder to create")
    add(
        "--seq_len", type=int, nargs="+", default=[RowSettings.seq_len], metavar="N",
        help="row length in tokens; several for a run with data.phases",
    )  # fmt: skip
    add(
        "--format", choices=FORMATS, default=Settings.format, dest="file_format",
        help="file format; auto decides by name and first line and never picks sentences",
    )  # fmt: skip
    add("--text_field", default=Settings.text_field, help="the JSON or TFDS field with the text")
    add(
        "--validation_fraction", type=float, default=Settings.validation_fraction,
        help="fraction of documents in the validation split",
    )  # fmt: skip
    add(
        "--short_seq_prob", type=float, default=RowSettings.short_seq_prob,
        help="fraction of chunks with a random length",
    )  # fmt: skip
    add(
        "--character_coverage", type=float, default=Settings.character_coverage,
        help="fraction of the characters that a trained vocabulary spells",
    )  # fmt: skip
    add(
        "--no_lower_case", action="store_false", dest="lower_case", help="keep capital letters"
    )  # fmt: skip
    add("--keep_accents", action="store_true", help="keep accents and other combining marks")
    add(
        "--language", default=RowSettings.language, metavar="CODE",
        help="whose rules split sentences, such as en, de, zh; auto goes by each text's script",
    )  # fmt: skip
    add(
        "--segmenter", choices=SEGMENTERS,
        help="finds Chinese words, to be masked whole (pip install rjieba)",
    )  # fmt: skip
    add("--keep_duplicates", action="store_true", help="keep documents with equal text")
    add("--no_packing", action="store_false", dest="packing", help="one chunk per row")
    add("--seed", type=int, default=RowSettings.seed, help="seed of the split and of short chunks")
    add("--data_dir", help="the folder of TFDS data sets (default: TFDS's own)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = row_arguments("albert_jax.prepare", "Makes training rows from text.", INPUTS)
    vocabulary = parser.add_mutually_exclusive_group()
    vocabulary.add_argument(
        "--tokenizer", metavar="FILE", help="the vocabulary to use: .model or vocab.txt"
    )
    vocabulary.add_argument(
        "--vocab_size", type=int, metavar="N",
        help=f"size of the vocabulary to train (default: {Settings.vocab_size})",
    )  # fmt: skip
    parser.add_argument(
        "--tokenizer_type", choices=TYPES,
        help=f"kind of vocabulary to train (default: {Settings.tokenizer_type})",
    )  # fmt: skip
    parser.add_argument(
        "--validation", action="append", metavar="X",
        help="like --input, for the validation split; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--num_workers", type=int, help="processes (default: one per core); no effect on rows"
    )
    return run(**vars(parser.parse_args(arguments)))


def run(**options: Any) -> int:
    """Calls `prepare`, prints the summary or the error, and returns the command's exit code."""
    # Treats SIGTERM like Ctrl-C, so that the temporary folder is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        manifest = prepare(**options)
    except USER_ERRORS as error:
        return fail(error)
    except KeyboardInterrupt:
        print("error: interrupted; nothing was written", file=sys.stderr)
        return 130
    print(summary(manifest))
    return 0


def summary(manifest: dict[str, Any]) -> str:
    """Returns the manifest's numbers, and what was changed or is unusual, a line each."""
    rows, fill = manifest["rows"], manifest["fill"]
    found = (
        f"{manifest['documents']:,} documents ({manifest['duplicates_dropped']:,} duplicates), "
        f"{sum(manifest['pieces'].values()):,} pieces"
    )
    made = (
        f"{rows['train']:,} train and {rows['validation']:,} validation rows of "
        f"{manifest['seq_len']}, {fill['train']:.1%} full"
    )
    lines = [found, made]
    languages = manifest.get("languages", {})
    if languages and manifest["settings"].get("language") is None and set(languages) != {"en"}:
        said = ", ".join(f"{count:,} documents as {code}" for code, count in languages.items())
        lines.append(f"sentences were split by script: {said}; --language sets one")
    if manifest.get("is_divided"):
        lines.append("there is only one document: its last sentences are the validation split")
    if marks := manifest.get("removed_marks"):
        lines.append(
            f"{marks:,} accents and other combining marks were removed, as English ALBERT does; "
            "--keep_accents keeps them"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
