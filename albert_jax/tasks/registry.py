"""The tasks by name."""

import os
from collections.abc import Sequence
from typing import Any

from albert_jax.config import TaskConfig
from albert_jax.data.tfds import TFDS_PREFIX
from albert_jax.tasks.classification import Classification
from albert_jax.tasks.examples import TaskData
from albert_jax.tasks.multiple_choice import MultipleChoice
from albert_jax.tasks.question_answering import QuestionAnswering
from albert_jax.tasks.readers.conll import read_conll
from albert_jax.tasks.readers.glue import GLUE_TASKS, read_glue
from albert_jax.tasks.readers.race import read_race
from albert_jax.tasks.readers.squad import read_squad_task
from albert_jax.tasks.readers.tables import read_table
from albert_jax.tasks.readers.tfds import read_tfds
from albert_jax.tasks.token_classification import TokenClassification

READERS = {
    **dict.fromkeys((f"glue/{task}" for task in GLUE_TASKS), read_glue),
    **dict.fromkeys(("squad/v1.1", "squad/v2.0"), read_squad_task),
    **dict.fromkeys(("race", "race/middle", "race/high"), read_race),
    "conll2003": read_conll,
    **dict.fromkeys(("classification", "regression"), read_table),
}


def read_task(name: str, source: str | os.PathLike, data_dir: str | None = None) -> TaskData:
    """Reads all splits there are of a task, and checks every row of them.

    Args:
      name: the task, one of `READERS`.
      source: a folder or file with the task's official files (see each reader), or `tfds:NAME`.
      data_dir: where TFDS data sets lie; TFDS's own default if None.

    Returns:
      The examples, in the order of their files.

    Raises:
      FileNotFoundError: the source, or every file of the task in it, is missing.
      ValueError: the name is unknown, or a file is malformed: the message has the file, the line
        (or place in the JSON), the reason and what to do.
    """
    if name not in READERS:
        raise ValueError(f"task {name!r}: must be one of {', '.join(READERS)}")
    source = os.fspath(source)
    if not source:
        raise ValueError(f"task {name}: no data given; pass a folder, a file or tfds:NAME")
    if source.startswith(TFDS_PREFIX):
        return read_tfds(name, source, data_dir)
    return READERS[name](name, source)


def make_task(config: TaskConfig, labels: Sequence[str]) -> Any:
    """The fine-tuning task that `config.name` names, with the classes of its data."""
    family = config.name.partition("/")[0]
    tasks = {"squad": QuestionAnswering, "race": MultipleChoice, "conll2003": TokenClassification}
    return tasks.get(family, Classification)(config, labels)
