"""A run: settings become an experiment, which is checked before it begins; the loop trains it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_jax.config import Config
from albert_jax.train.distributed import agreed
from albert_jax.train.experiment import Experiment
from albert_jax.train.finetuning import finetuning_experiment
from albert_jax.train.loggers import logger_types
from albert_jax.train.pretraining import pretraining_experiment


def make_experiment(
    config: Config, workdir: Path, devices: Sequence[Any] | None = None
) -> Experiment:
    """Checks all that can be checked before compute is spent, and opens the run directory.

    Args:
      config: all settings.
      workdir: the run directory, new or of the same run.
      devices: to run on; all by default.

    Raises:
      FileNotFoundError: where the data or the weights to begin with are missing.
      ValueError: where settings, data, devices and `workdir` do not fit together.
    """
    experiment = (
        pretraining_experiment if config.task.name == "pretrain" else finetuning_experiment
    )
    with agreed():
        logger_types(config.train.loggers)
        return experiment(config, workdir, devices)
