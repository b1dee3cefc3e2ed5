"""A run: settings become an experiment, which is checked before it begins; the loop trains it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_jax.config import Config
from albert_jax.train.distributed import agreed
from albert_jax.train.experiment import Plan
from albert_jax.train.finetuning import plan_fine_tuning
from albert_jax.train.pretraining import plan_pretraining


def make_plan(config: Config, workdir: Path, devices: Sequence[Any] | None = None) -> Plan:
    """Checks all that can be checked before compute is spent, and opens the run directory.

    Args:
      config: all settings.
      workdir: the run directory, new or of the same run.
      devices: to run on; all by default.

    Raises:
      FileNotFoundError: where the data or the weights to begin with are missing.
      ValueError: where settings, data, devices and `workdir` do not fit together.
    """
    plan = plan_pretraining if config.task.name == "pretrain" else plan_fine_tuning
    with agreed():
        return plan(config, workdir, devices)
