"""The command `python -m albert_jax.train`."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import jax

from albert_jax.config.errors import USER_ERRORS, RunError, fail
from albert_jax.config.load import load_config, user_path
from albert_jax.train import make_experiment
from albert_jax.train.distributed import HELP, agreed, fatal_errors, joined, wait_for_all
from albert_jax.train.experiment import Experiment
from albert_jax.train.failures import hide_late_writes
from albert_jax.train.loop import take_directory, train
from albert_jax.train.preemption import EXIT_CODE, StoppedError
from albert_jax.train.report import report
from albert_jax.train.seeds import run_seeds


def _run(experiment: Experiment) -> str:
    """Trains, prints a report, and returns the name of the metric that ranks runs.

    Raises:
      StoppedError: if the run was asked to stop before the last step.
    """
    with fatal_errors():
        state = train(experiment)
    wait_for_all()  # other processes may read what process 0 wrote
    if int(state.step) < experiment.config.train.num_steps:
        raise StoppedError
    if jax.process_index() == 0:
        for line in report(experiment):
            print(line, flush=True)
    return experiment.best or "loss"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.train",
        description="Trains a model. With an existing --workdir, resumes from its newest "
        "checkpoint.",
        epilog="Override settings with --config.GROUP.KEY=VALUE. On SIGTERM or Ctrl-C, the run "
        f"saves a checkpoint and exits with code {EXIT_CODE}. {HELP}",
    )
    parser.add_argument("--config", required=True, help="configs/X.py, or configs/X.py:ARGUMENT")
    parser.add_argument("--workdir", required=True, type=user_path, help="the run directory")
    args, overrides = parser.parse_known_args(argv)
    with joined():
        try:
            return _command(args.config, overrides, args.workdir)
        except StoppedError:
            return EXIT_CODE
        except RunError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1


def _command(file: str, overrides: Sequence[str], workdir: Path) -> int:
    try:
        with agreed():
            config = load_config(file, overrides)
        if config.task.seeds:
            with ExitStack() as stack:
                take_directory(workdir, stack)
                return run_seeds(config, workdir, lambda c, d: _run(make_experiment(c, d)))
        experiment = make_experiment(config, workdir)
    except USER_ERRORS as error:
        return fail(error) if jax.process_index() == 0 else 1
    _run(experiment)
    return 0


if __name__ == "__main__":
    hide_late_writes()
    sys.exit(main())
