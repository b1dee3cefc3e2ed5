"""What can be learnt: examples to batches, losses, predictions and metrics."""

from collections.abc import Sequence
from typing import Any

from albert_jax.config import TaskConfig
from albert_jax.tasks.answer import Answer
from albert_jax.tasks.choose import Choose
from albert_jax.tasks.classify import Classify
from albert_jax.tasks.tag import Tag


def make_task(config: TaskConfig, labels: Sequence[str]) -> Any:
    """The fine-tuning task that `config.name` names, with the classes of its data."""
    family = config.name.partition("/")[0]
    tasks = {"squad": Answer, "race": Choose, "conll2003": Tag}
    return tasks.get(family, Classify)(config, labels)
