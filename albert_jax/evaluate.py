"""The command `python -m albert_jax.evaluate`: measures a run on its held-out examples."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.checkpoints.read import AVERAGE
from albert_jax.checkpoints.run_dir import read_run
from albert_jax.config import Config
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import user_path
from albert_jax.tasks.registry import PRETRAINING
from albert_jax.train import make_experiment
from albert_jax.train.distributed import HELP, agreed, joined, said_by_first


def evaluate(
    workdir: Path, step: int | None = None, data: Path | None = None, average: int = 1
) -> dict[str, float]:
    """Returns a checkpoint's metrics on the run's held-out examples, computed as in training.

    Translations are searched for with `task.translation.beam`.

    Args:
      workdir: the run directory.
      step: a step that has a checkpoint; by default the best of a fine-tuned run, else the
        newest, skipping damaged ones.
      data: where the run's rows or examples are, if they have moved.
      average: of how many of the newest checkpoints to take the mean.

    Raises:
      FileNotFoundError: if there is no run or no checkpoint, or the data is missing.
      ValueError: if there is no checkpoint of that step, it is damaged, or the data has changed.
    """
    with agreed():
        config = read_run(workdir).config
        if data is not None:
            config = _with_data(config, str(data))
        config = dataclasses.replace(config, task=config.task.with_full_search())
    experiment = make_experiment(config, workdir)
    folder = workdir / "checkpoints"
    with agreed(), Checkpoints(folder, read_only=True) as checkpoints:
        found = checkpoints.find(step) if jax.process_index() == 0 else 0
    step = said_by_first(found)
    with agreed(), Checkpoints(folder, read_only=True) as checkpoints:
        abstract = experiment.spec.abstract_state.params
        if average > 1:
            step, params = checkpoints.mean_params(average, abstract)
        else:
            params = checkpoints.restore_params(step, abstract)
    with jax.set_mesh(experiment.mesh):
        return {"step": step} | experiment.evaluate(params, step)


def _with_data(config: Config, data: str) -> Config:
    if config.task.name == PRETRAINING:
        return dataclasses.replace(config, data=dataclasses.replace(config.data, path=data))
    return dataclasses.replace(config, task=dataclasses.replace(config.task, data=data))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.evaluate",
        description="Prints a run's metrics on its held-out examples, as a JSON object.",
        epilog=HELP,
    )
    parser.add_argument("--workdir", "--checkpoint", required=True, type=user_path, help="the run")
    parser.add_argument("--step", type=int, help="a checkpoint (default: the best or newest)")
    parser.add_argument(
        "--data", type=user_path, help="the run's rows or examples, if they have moved"
    )
    parser.add_argument("--average", type=int, default=1, help=AVERAGE)
    args = parser.parse_args(argv)
    with joined():
        is_first = jax.process_index() == 0
        try:
            found = evaluate(args.workdir, args.step, args.data, args.average)
        except USER_ERRORS as error:
            return fail(error) if is_first else 1
        if is_first:
            print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
