"""The command `python -m albert_jax.export`: writes a model for deployment."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from albert_jax.checkpoints.read import AVERAGE
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import user_path
from albert_jax.data.files import new_folder
from albert_jax.export.write import write_export
from albert_jax.predict.exported import FORMATS
from albert_jax.predict.load import load


def export(source: str, output: Path, to: str, is_quantized: bool, average: int = 1) -> list[str]:
    """Writes a model as a program with its tokenizer and labels, atomically.

    Args:
      source: anything that `load` reads but an export.
      output: the directory to create.
      to: `stablehlo` or `onnx`.
      is_quantized: whether matrices become int8, in ONNX.
      average: for a run, of how many of the newest checkpoints to take the mean.

    Returns:
      Lines that say what was written.

    Raises:
      FileNotFoundError: if there is no model.
      ValueError: if it cannot be read or written, or `output` exists.
    """
    if is_quantized and to != "onnx":
        raise ValueError("--int8 is for ONNX; add --to onnx, or leave it out")
    with new_folder(output) as folder:
        model = load(source, average=average)
        write_export(model, folder, to, is_quantized)
    sizes = [f"{file.name} {file.stat().st_size / 1e6:,.1f} MB" for file in output.iterdir()]
    return [f"{output}: {model.kind}, {', '.join(sorted(sizes))}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.export",
        description="Writes a model as a program for deployment, with its tokenizer and labels.",
        epilog="`albert_jax.load` reads the directory again, with the same methods. Without this "
        "package: configs/README.md, Deployment.",
    )
    parser.add_argument(
        "--checkpoint", required=True, help="a run directory, another model directory, or hf:NAME"
    )
    parser.add_argument("--output", required=True, type=user_path, help="the directory to create")
    parser.add_argument("--to", required=True, choices=FORMATS, help="the format")
    parser.add_argument(
        "--int8", action="store_true", help="onnx: matrices in 8 bits, a quarter of the size"
    )
    parser.add_argument("--average", type=int, default=1, help=AVERAGE)
    args = parser.parse_args(argv)
    try:
        print(*export(args.checkpoint, args.output, args.to, args.int8, args.average), sep="\n")
    except USER_ERRORS as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
