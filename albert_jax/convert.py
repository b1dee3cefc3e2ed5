"""The command `python -m albert_jax.convert`."""

import argparse
import dataclasses
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.formats.tensorflow import write_tf
from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.checkpoints.read import read
from albert_jax.checkpoints.run_dir import open_run
from albert_jax.checkpoints.state import TrainState
from albert_jax.checkpoints.weights import HAVE_MOMENTS, Weights, check_same_model, provenance
from albert_jax.config import Config
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import load_config
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.train.optimizer import optimizer_of


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
    if weights.step and not weights.moments:
        moments = f"; without the optimizer's state at step {weights.step}"
    tokenizer = "" if weights.tokenizer else "; without a tokenizer"
    return f"{output}: {weights.kind}, {', '.join(sorted(weights.params))}{moments}{tokenizer}"


def write_run(
    weights: Weights, directory: Path, config: Config, source: str | None = None
) -> None:
    """Makes a run directory with one checkpoint, which `train` with `config` goes on from.

    With the optimizer's moments the run goes on from `weights.step`; without them it
    begins, at step 0, with these parameters. `source` is the name of what was read, for the
    run's record.

    Raises:
      ValueError: where `config` is of another model, or its run is over.
    """
    check_same_model(weights.config, config.model, "what is read")
    step = weights.step if weights.moments else 0
    if step >= config.train.num_steps:
        raise ValueError(
            f"config.train.num_steps={config.train.num_steps}, but {step} steps are done; raise it"
        )
    if weights.moments and config.optimizer.name not in HAVE_MOMENTS:
        raise ValueError(
            f"config.optimizer.name={config.optimizer.name!r} cannot continue with the moments of "
            f"{' or '.join(HAVE_MOMENTS)}; start a new run with config.init_from"
        )
    params = jax.tree.map(jnp.asarray, weights.params)
    opt_state = optimizer_of(config).init(params)
    if weights.moments is not None:
        mu, nu = (jax.tree.map(jnp.asarray, tree) for tree in weights.moments)
        opt_state = optax.tree.set(opt_state, mu=mu, nu=nu, count=jnp.asarray(step, jnp.int32))
    origin = provenance(source, weights) if source else None
    open_run(directory, config, None, weights.tokenizer, weights.kind, weights.labels, origin)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        state = TrainState(jnp.asarray(step, jnp.int32), params, opt_state)
        checkpoints.save(step, state, {})


if __name__ == "__main__":
    sys.exit(main())
