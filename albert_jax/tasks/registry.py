"""The table of fine-tuning tasks, and what is made from it.

A task is one entry: `register(TaskSpec(...))`, from a config file or from a package of your own.
A package names the module that does so under the entry point group `albert_jax.tasks`; then
every command knows its tasks.
"""

import os
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import Any

from albert_jax.config import TaskConfig
from albert_jax.config.choices import nearest
from albert_jax.config.schema import TFDS_PREFIX
from albert_jax.tasks.classification import Classification
from albert_jax.tasks.clue import CLUE, XNLI
from albert_jax.tasks.embedding import OF_PAIRS, OF_SCORES, Embedding
from albert_jax.tasks.examples import TaskData
from albert_jax.tasks.finetuning import FinetuningTask, Recipe, TaskSpec
from albert_jax.tasks.multiple_choice import MultipleChoice
from albert_jax.tasks.question_answering import (
    QuestionAnswering,
    QuestionAnsweringWithNull,
)
from albert_jax.tasks.readers.conll import read_conll
from albert_jax.tasks.readers.glue import NLI, TWO_WAY, read_glue
from albert_jax.tasks.readers.pairs import (
    nli_from_tfds,
    read_nli,
    read_pairs,
    read_stsb,
    stsb_from_tfds,
)
from albert_jax.tasks.readers.race import read_race
from albert_jax.tasks.readers.squad import read_squad_task
from albert_jax.tasks.readers.tables import read_table
from albert_jax.tasks.readers.tfds import (
    conll_from_tfds,
    glue_from_tfds,
    race_from_tfds,
    squad_from_tfds,
    texts_from_tfds,
)
from albert_jax.tasks.submissions import LeaderboardFiles
from albert_jax.tasks.token_classification import TokenClassification
from albert_jax.tasks.translation import translation_spec

PRETRAINING = "pretrain"  # the only name without an entry
TRANSLATION = "translation/"  # before a direction, such as en-de; these entries are made on demand
ENTRY_POINTS = "albert_jax.tasks"


def _glue(
    name: str,
    file: str | dict[str, str],
    metrics: tuple[str, ...],
    recipe: Recipe | None = None,
    class_names: tuple[str, ...] = (),
) -> TaskSpec:
    by_split = {"test": file} if isinstance(file, str) else file
    return TaskSpec(
        name=f"glue/{name}",
        family=Classification,
        read=read_glue,
        read_to_predict=partial(read_glue, to_predict=True),
        read_tfds=glue_from_tfds,
        metrics=metrics,
        recipe=recipe,
        files=LeaderboardFiles(by_split, class_names),
    )


def _race(name: str, recipe: Recipe | None = None, recipe_v2: Recipe | None = None) -> TaskSpec:
    return TaskSpec(
        name=name,
        family=MultipleChoice,
        read=read_race,
        read_to_predict=partial(read_race, to_predict=True),
        read_tfds=race_from_tfds,
        metrics=("accuracy",),
        recipe=recipe,
        recipe_v2=recipe_v2,
    )


# Recipes: learning rate, batch size, dropout, steps, warmup steps, tokens. Source:
# arXiv:1909.11942, Table 14, but for CoNLL-2003, which ALBERT's authors did not try: there it is
# a rate, a batch and a number of epochs (4) that BERT's did (arXiv:1810.04805, A.3).
# Metrics: GLUE's leaderboard for what is reported; ALBERT (Table 9) for which of two comes first.
# SQuAD 2.0 is chosen by F1 at the best threshold, as ALBERT reports it, so that the answers and
# the separation of the unanswerable both count.
_SPECS = (
    _glue("cola", "CoLA.tsv", ("matthews",), Recipe(1e-5, 16, 0.0, 5336, 320, 512)),
    _glue("sst2", "SST-2.tsv", ("accuracy",), Recipe(1e-5, 32, 0.0, 20935, 1256, 512)),
    _glue("mrpc", "MRPC.tsv", ("accuracy", "f1"), Recipe(2e-5, 32, 0.0, 800, 200, 512)),
    _glue("stsb", "STS-B.tsv", ("pearson", "spearman"), Recipe(2e-5, 16, 0.0, 3598, 214, 512)),
    _glue("qqp", "QQP.tsv", ("accuracy", "f1"), Recipe(5e-5, 128, 0.1, 14000, 1000, 512)),
    _glue(
        "mnli",
        {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
        ("accuracy",),
        Recipe(3e-5, 128, 0.0, 10000, 1000, 512),
        NLI,
    ),
    _glue("qnli", "QNLI.tsv", ("accuracy",), Recipe(1e-5, 32, 0.0, 33112, 1986, 512), TWO_WAY),
    _glue("rte", "RTE.tsv", ("accuracy",), Recipe(3e-5, 32, 0.1, 800, 200, 512), TWO_WAY),
    _glue("wnli", "WNLI.tsv", ("accuracy",), Recipe(2e-5, 16, 0.1, 2000, 250, 512)),
    _glue("ax", "AX.tsv", ("matthews",), class_names=NLI),
    TaskSpec(
        name="squad/v1.1",
        family=QuestionAnswering,
        read=read_squad_task,
        read_to_predict=partial(read_squad_task, to_predict=True),
        read_tfds=squad_from_tfds,
        metrics=("f1", "exact"),
        recipe=Recipe(5e-5, 48, 0.0, 3649, 365, 384),
    ),
    TaskSpec(
        name="squad/v2.0",
        family=QuestionAnsweringWithNull,
        read=read_squad_task,
        read_to_predict=partial(read_squad_task, to_predict=True),
        read_tfds=squad_from_tfds,
        metrics=("best_f1", "best_exact", "f1", "exact"),
        recipe=Recipe(3e-5, 48, 0.0, 8144, 814, 512),
    ),
    _race(
        "race",
        Recipe(2e-5, 32, 0.1, 12000, 1000, 512),
        # The second version's models diverge with the paper's rate; elsewhere nothing differs.
        # Source: google-research/albert README, October 31, 2019.
        Recipe(1e-5, 32, 0.0, 12000, 1000, 512),
    ),
    _race("race/middle"),
    _race("race/high"),
    TaskSpec(
        name="conll2003",
        family=TokenClassification,
        read=read_conll,
        read_to_predict=partial(read_conll, to_predict=True),
        read_tfds=conll_from_tfds,
        metrics=("f1", "precision", "recall"),
        recipe=Recipe(3e-5, 32, 0.0, 1756, 176, 512),
    ),
    *CLUE,
    *XNLI,
    # Rate, batch and a tenth of the steps to warm up. Source: arXiv:1908.10084, section 3.1; four
    # epochs and the length are those of its authors' code.
    TaskSpec(
        name="embedding/stsb",
        family=Embedding,
        read=read_stsb,
        read_to_predict=partial(read_stsb, to_predict=True),
        read_tfds=stsb_from_tfds,
        metrics=OF_SCORES,
        recipe=Recipe(2e-5, 16, 0.0, 1440, 144, 128),
    ),
    TaskSpec(
        name="embedding/nli",
        family=Embedding,
        read=read_nli,
        read_to_predict=partial(read_nli, to_predict=True),
        read_tfds=nli_from_tfds,
        metrics=OF_PAIRS,
    ),
    TaskSpec(
        name="embedding/pairs",
        family=Embedding,
        read=read_pairs,
        read_to_predict=partial(read_pairs, to_predict=True),
        metrics=(*OF_SCORES, *OF_PAIRS),  # by whether there are scores
    ),
    TaskSpec(
        name="classification",
        family=Classification,
        read=read_table,
        read_to_predict=partial(read_table, to_predict=True),
        read_tfds=texts_from_tfds,
        metrics=("accuracy", "macro_f1"),
    ),
    TaskSpec(
        name="regression",
        family=Classification,
        read=read_table,
        read_to_predict=partial(read_table, to_predict=True),
        read_tfds=texts_from_tfds,
        metrics=("pearson", "spearman", "mean_squared_error"),
    ),
)
SPECS: dict[str, TaskSpec] = {spec.name: spec for spec in _SPECS}


def register(spec: TaskSpec) -> None:
    """Adds a task to the table; the same name again takes the place of the first."""
    SPECS[spec.name] = spec


def spec_of(name: str) -> TaskSpec:
    """Returns the entry of a task.

    Raises:
      ValueError: if there is no such task, neither here nor in installed packages.
    """
    if name.startswith(TRANSLATION) and name not in SPECS:
        return translation_spec(name)
    if name not in SPECS:
        for entry_point in metadata.entry_points(group=ENTRY_POINTS):
            entry_point.load()
    if name not in SPECS:
        raise ValueError(
            f"config.task.name={name!r} is not a task{nearest(name, SPECS)}; a task of your own "
            f"must be registered first, or installed with the entry point group {ENTRY_POINTS}"
        )
    return SPECS[name]


def read_task(
    name: str, source: str | os.PathLike, data_dir: str | None = None, to_predict: bool = False
) -> TaskData:
    """Reads all splits there are of a task, and checks every row of them.

    Args:
      name: the task.
      source: a folder or file with the task's official files (see each reader), or `tfds:NAME`.
      data_dir: where TFDS data sets lie; TFDS's own default if None.
      to_predict: whether the examples are to be predicted; see `TaskSpec.read_to_predict`.

    Returns:
      The examples, in the order of their files.

    Raises:
      FileNotFoundError: if the source, or every file of the task in it, is missing.
      ValueError: if the name is unknown, or a file is malformed: the message names the file, the
        line (or place in the JSON), the reason and the remedy.
    """
    spec, source = spec_of(name), os.path.expanduser(source)
    if not source:
        raise ValueError(f"task {name}: no data given; pass a folder, a file or tfds:NAME")
    if not source.startswith(TFDS_PREFIX):
        read = spec.read_to_predict if to_predict and spec.read_to_predict else spec.read
        return read(name, source)
    if spec.read_tfds is None:
        raise ValueError(f"task {name} is not read from TFDS ({source}); give a folder or a file")
    return spec.read_tfds(name, source, data_dir)


def make_task(config: TaskConfig, labels: Sequence[str]) -> FinetuningTask:
    """Returns the fine-tuning task that `config.name` names, with the classes of its data."""
    spec = spec_of(config.name)
    return spec.family(spec, config, labels)


def fine_tuning_recipe(task: str, version: str = "v2") -> dict[str, dict[str, Any]]:
    """Returns settings by group to fine-tune a published ALBERT; add `init_from` and `task.data`.

    The run is evaluated ten times, and saved each time; the best checkpoint is kept.

    Args:
      task: a task with a recipe.
      version: of the model that is fine-tuned, v1 or v2.

    Raises:
      ValueError: if the task has no recipe, or the version was not published.
    """
    spec = spec_of(task)
    recipe = spec.recipe_v2 if version == "v2" and spec.recipe_v2 else spec.recipe
    if recipe is None or version not in ("v1", "v2"):
        known = ", ".join(name for name, spec in SPECS.items() if spec.recipe)
        raise ValueError(
            f"no recipe for {task!r} {version!r}: tasks are {known}; versions are v1, v2"
        )
    tenth = -(-recipe.num_steps // 10)
    settings = _settings(task, recipe)
    settings["optimizer"]["warmup_steps"] = recipe.warmup_steps
    settings["train"] |= {
        "num_steps": recipe.num_steps,
        "eval_every": tenth,
        "checkpoint_every": tenth,
    }
    return settings


def own_data_recipe(task: str) -> dict[str, dict[str, Any]]:
    """Returns settings by group for data of your own, with steps from the number of examples.

    The run is evaluated ten times, and saved each time; the best checkpoint is kept.
    """
    settings = _settings(task, _OWN_DATA)
    settings["optimizer"]["warmup_fraction"] = 0.1
    settings["train"]["num_epochs"] = 3.0
    return settings


# In the middle of what BERT's authors searched. Source: arXiv:1810.04805, A.3; its steps, and
# those to warm up, follow from the examples.
_OWN_DATA = Recipe(3e-5, 16, 0.0, 0, 0, 256)


def _settings(task: str, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Returns the settings of a recipe but for its steps."""
    return {
        "model": {
            "hidden_dropout_prob": recipe.dropout,
            "attention_probs_dropout_prob": recipe.dropout,
        },
        "optimizer": {
            "name": "adamw",
            "learning_rate": recipe.learning_rate,
            "schedule": "linear",
            "weight_decay": 0.01,
            "eps": 1e-6,
            "clip_norm": 1.0,
            # The original has none. Without it the first steps are larger, and on small data
            # more runs fail. Source: arXiv:2006.04884 and 2006.05987.
            "bias_correction": True,
        },
        "train": {
            "batch_size": recipe.batch_size,
            "log_every": 50,
            "keep_checkpoints": 1,  # besides the best
        },
        "task": {"name": task, "max_length": recipe.max_length, "classifier_dropout": 0.1},
    }
