"""Training runs: builds an experiment from the settings, checks it, and trains it in a loop."""

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
    """Checks the settings and inputs before any compute is spent, and opens the run directory.

    Args:
      config: all settings.
      workdir: the run directory; new, or that of the run to resume.
      devices: the devices to run on; all of them by default.

    Raises:
      FileNotFoundError: if the data or the initial weights are missing.
      ValueError: if settings, data, devices and `workdir` are inconsistent.
    """
    experiment = (
        pretraining_experiment if config.task.name == "pretrain" else finetuning_experiment
    )
    with agreed():
        logger_types(config.train.loggers)
        return experiment(config, workdir, devices)
