"""The entries of CLUE's tasks and of XNLI in the table of tasks."""

from functools import partial

from albert_jax.tasks.classification import Classification
from albert_jax.tasks.examples import TaskData
from albert_jax.tasks.finetuning import TaskSpec
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


def _clue(name: str) -> TaskSpec:
    return TaskSpec(
        name=f"clue/{name}",
        family=Classification,
        read=read_clue,
        read_to_predict=partial(read_clue, to_predict=True),
        metrics=("accuracy", "macro_f1"),
    )


def _xnli(language: str) -> TaskSpec:
    return TaskSpec(
        name=f"xnli/{language}",
        family=Classification,
        read=read_xnli,
        read_to_predict=partial(read_xnli, to_predict=True),
        read_tfds=xnli_from_tfds,
        metrics=("accuracy",),
    )


def _read_cmrc(name: str, source: str, to_predict: bool = False) -> TaskData:
    del name  # its files have SQuAD's layout
    return read_squad_task("squad/v1.1", source, to_predict)


CLUE = (
    *map(_clue, CLUE_TASKS),
    TaskSpec(
        name="clue/cmrc2018",
        family=QuestionAnsweringByCharacters,
        read=_read_cmrc,
        read_to_predict=partial(_read_cmrc, to_predict=True),
        metrics=("f1", "exact"),
    ),
    TaskSpec(
        name="clue/cluener",
        family=TokenClassification,
        read=read_cluener,
        read_to_predict=partial(read_cluener, to_predict=True),
        metrics=("f1", "precision", "recall"),
    ),
)
XNLI = tuple(map(_xnli, XNLI_LANGUAGES))
