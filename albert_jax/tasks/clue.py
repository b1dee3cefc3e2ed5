"""The entries of CLUE's tasks and of XNLI in the table of tasks."""

from collections.abc import Callable
from functools import partial

from albert_jax.tasks.classification import Classification
from albert_jax.tasks.examples import TaskData
from albert_jax.tasks.finetuning import FinetuningTask, TaskSpec
from albert_jax.tasks.question_answering import QuestionAnsweringByCharacters
from albert_jax.tasks.readers.clue import (
    CLUE_TASKS,
    XNLI_LANGUAGES,
    read_clue,
    read_cluener,
    read_xnli,
    xnli_from_tfds,
)
from albert_jax.tasks.readers.squad import read_squad_task
from albert_jax.tasks.token_classification import TokenClassification


def _read_cmrc(name: str, source: str, to_predict: bool = False) -> TaskData:
    del name  # its files have SQuAD's layout
    return read_squad_task("squad/v1.1", source, to_predict)


def _task(
    name: str,
    family: type[FinetuningTask],
    read: Callable[..., TaskData],
    *metrics: str,
    read_tfds: Callable[[str, str, str | None], TaskData] | None = None,
) -> TaskSpec:
    predict = partial(read, to_predict=True)
    return TaskSpec(name, family, read, metrics, read_tfds, read_to_predict=predict)


CLUE = (
    *(
        _task(f"clue/{name}", Classification, read_clue, "accuracy", "macro_f1")
        for name in CLUE_TASKS
    ),
    _task("clue/cmrc2018", QuestionAnsweringByCharacters, _read_cmrc, "f1", "exact"),
    _task("clue/cluener", TokenClassification, read_cluener, "f1", "precision", "recall"),
)
XNLI = tuple(
    _task(f"xnli/{code}", Classification, read_xnli, "accuracy", read_tfds=xnli_from_tfds)
    for code in XNLI_LANGUAGES
)
