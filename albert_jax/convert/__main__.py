"""The command `python -m albert_jax.convert`."""

import argparse
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from albert_jax.config import Config
from albert_jax.config_file import load_config
from albert_jax.convert.hf import write_hf
from albert_jax.convert.read import read
from albert_jax.convert.run import write_run
from albert_jax.convert.tf import write_tf
from albert_jax.convert.weights import Weights
from albert_jax.tokenizer import Tokenizer
from albert_jax.user_errors import USER_ERRORS, fail


def convert(
    source: str, output: Path, to: str, config: Config | None, step: int | None
) -> Weights:
    """Reads a model and writes it in another format, the whole of it or nothing.

    Args:
      source: what `read` reads.
      output: the directory to make.
      to: `hf`, `orbax` (a run directory) or `tf`.
      config: settings of the run, for `orbax`; by default the defaults.
      step: of a run directory, the checkpoint to read; by default the newest.

    Raises:
      FileNotFoundError: where there is no model.
      ValueError: where it cannot be read or written, or `output` exists.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output {str(output)!r} exists and is not empty; choose a new one")
    weights = read(source, step, with_moments=to != "hf")
    if weights.tokenizer is not None:
        Tokenizer(source, weights.tokenizer)  # refuses what could not be loaded again
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        folder = unfinished / output.name
        if to == "orbax":
            write_run(weights, folder, config or _default(weights), source)
        else:
            {"hf": write_hf, "tf": write_tf}[to](weights, folder)
        folder.replace(output)
    finally:
        shutil.rmtree(unfinished)
    return weights


def _default(weights: Weights) -> Config:
    """Default settings around the model, which leave steps to be done."""
    model, default = weights.config, Config()
    return dataclasses.replace(
        default,
        model=model,
        data=dataclasses.replace(default.data, seq_len=model.max_position_embeddings),
        train=dataclasses.replace(
            default.train, num_steps=max(default.train.num_steps, weights.step + 1)
        ),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.convert",
        description="Converts a model; the input's format is told by what it holds.",
        epilog="With --config, settings are overridden with --config.GROUP.KEY=VALUE.",
    )
    parser.add_argument(
        "--input", required=True, help="a run, a transformers or a TensorFlow directory, hf:NAME"
    )
    parser.add_argument("--output", required=True, type=Path, help="the directory to make")
    parser.add_argument(
        "--to", required=True, choices=("hf", "orbax", "tf"), help="orbax: a run directory"
    )
    parser.add_argument(
        "--config", help="orbax: the settings that `train` will go on with, configs/X.py"
    )
    parser.add_argument("--step", type=int, help="of a run, the checkpoint to read (the newest)")
    args, overrides = parser.parse_known_args(argv)
    try:
        if args.config is None and overrides:
            raise ValueError(f"unknown argument {overrides[0]!r} (settings need --config)")
        if args.config is not None and args.to != "orbax":
            raise ValueError("--config is for --to orbax")
        config = load_config(args.config, overrides) if args.config else None
        weights = convert(args.input, args.output, args.to, config, args.step)
    except USER_ERRORS as error:
        return fail(error)
    print(_describe(weights, args.output))
    return 0


def _describe(weights: Weights, output: Path) -> str:
    moments = f"; optimizer's moments at step {weights.step}" if weights.moments else ""
    tokenizer = "" if weights.tokenizer else "; without a tokenizer"
    return f"{output}: {weights.kind}, {', '.join(sorted(weights.params))}{moments}{tokenizer}"


if __name__ == "__main__":
    sys.exit(main())
