"""The command `python -m albert_jax.convert`: converts a model between formats."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.formats.tensorflow import write_tf
from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.checkpoints.read import AVERAGE, read
from albert_jax.checkpoints.run_dir import open_run
from albert_jax.checkpoints.state import TrainState
from albert_jax.checkpoints.weights import HAVE_MOMENTS, Weights, check_same_model, provenance
from albert_jax.config import Config
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import load_config, user_path
from albert_jax.data.files import new_folder
from albert_jax.data.tokenizers import tokenizer_of
from albert_jax.train.optimizer import optimizer_of


def convert(
    source: str,
    output: Path,
    to: str,
    config: Config | None,
    step: int | None,
    average: int = 1,
) -> Weights:
    """Reads a model and writes it in another format, atomically.

    Args:
      source: anything that `read` reads.
      output: the directory to create.
      to: `hf`, `orbax` (a run directory) or `tf`.
      config: settings of the run, for `orbax`; by default the defaults.
      step: for a run directory, the checkpoint to read; by default the best of a fine-tuned run,
        else the newest.
      average: for a run directory, of how many of the newest checkpoints to take the mean.

    Raises:
      FileNotFoundError: if there is no model.
      ValueError: if it cannot be read or written, or `output` exists.
    """
    with new_folder(output) as folder:
        weights = read(source, step, with_moments=to != "hf", average=average)
        if weights.vocabulary is not None:
            # Raises if the output could not be loaded again.
            tokenizer_of(weights.vocabulary, source)
        if to == "orbax":
            write_run(weights, folder, config or _default(weights), source)
        else:
            {"hf": write_hf, "tf": write_tf}[to](weights, folder)
    return weights


def _default(weights: Weights) -> Config:
    """Returns default settings for the model, with enough steps to continue training."""
    model, default = weights.config, Config()
    is_embedding = weights.kind == "embedding" and weights.task is not None
    return dataclasses.replace(
        default,
        model=model,
        task=weights.task if is_embedding else default.task,  # keeps the pooling
        data=dataclasses.replace(default.data, seq_len=model.max_position_embeddings),
        train=dataclasses.replace(
            default.train, num_steps=max(default.train.num_steps, weights.step + 1)
        ),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.convert",
        description="Converts a model. The input's format is recognized by its contents.",
        epilog="With --config, override settings with --config.GROUP.KEY=VALUE.",
    )
    parser.add_argument(
        "--input", required=True, help="a run, a transformers or a TensorFlow directory, hf:NAME"
    )
    parser.add_argument("--output", required=True, type=user_path, help="the directory to create")
    parser.add_argument(
        "--to", required=True, choices=("hf", "orbax", "tf"), help="orbax: a run directory"
    )
    parser.add_argument(
        "--config", help="orbax: the settings for `train` to continue with, configs/X.py"
    )
    parser.add_argument(
        "--step", type=int, help="for a run, the checkpoint (default: best or newest)"
    )
    parser.add_argument("--average", type=int, default=1, help=AVERAGE)
    args, overrides = parser.parse_known_args(argv)
    try:
        if args.config is None and overrides:
            raise ValueError(f"unknown argument {overrides[0]!r} (settings need --config)")
        if args.config is not None and args.to != "orbax":
            raise ValueError("--config applies only to --to orbax; leave it out")
        config = load_config(args.config, overrides) if args.config else None
        weights = convert(args.input, args.output, args.to, config, args.step, args.average)
    except USER_ERRORS as error:
        return fail(error)
    print(_describe(weights, args.output))
    return 0


def _describe(weights: Weights, output: Path) -> str:
    moments = f"; optimizer's moments at step {weights.step}" if weights.moments else ""
    if weights.step and not weights.moments:
        moments = f"; without the optimizer's state at step {weights.step}"
    tokenizer = "" if weights.vocabulary else "; without a tokenizer"
    return f"{output}: {weights.kind}, {', '.join(sorted(weights.params))}{moments}{tokenizer}"


def write_run(
    weights: Weights, directory: Path, config: Config, source: str | None = None
) -> None:
    """Creates a run directory with one checkpoint, from which `train` with `config` continues.

    With the optimizer's moments the run continues from `weights.step`; without them it starts at
    step 0 from these parameters. `source` is the name of the input, for the run's record.

    Raises:
      ValueError: if `config` describes another model, or its run is already complete.
    """
    check_same_model(weights.config, config.model, "--input")
    step = weights.step if weights.moments else 0
    if step >= config.train.num_steps:
        raise ValueError(
            f"config.train.num_steps={config.train.num_steps}, but {step} steps are done; "
            "increase train.num_steps"
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
    open_run(directory, config, None, weights.vocabulary, weights.kind, weights.labels, origin)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        state = TrainState(jnp.asarray(step, jnp.int32), params, opt_state)
        checkpoints.save(step, state, {})


if __name__ == "__main__":
    sys.exit(main())
