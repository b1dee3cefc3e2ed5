"""What a fine-tuning task is: its entry in the table, and what the commands call of it."""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.config.choices import one_of
from albert_jax.data.tokenizers import Tokenizer
from albert_jax.tasks.base import Batch, Mean, Metrics, cross_entropy, row_work
from albert_jax.tasks.examples import TaskData
from albert_jax.tasks.features import Features
from albert_jax.tasks.metrics import METRICS, SMALLER_IS_BETTER, text_metrics
from albert_jax.tasks.submissions import LeaderboardFiles

Outputs = Sequence[Mapping[str, np.ndarray]]  # of each row


class Recipe(NamedTuple):
    """Published settings for fine-tuning; `dropout` is the encoder's, lengths are in tokens."""

    learning_rate: float
    batch_size: int
    dropout: float
    num_steps: int
    warmup_steps: int
    max_length: int


class FinetuningTask(abc.ABC):
    """One family of tasks: examples to rows, rows to a loss, outputs to predictions and files.

    A subclass says how a row gives logits and targets (on the device), and what its outputs
    mean (on the host).

    Attributes:
      kind: what its models are for, a key of `model.heads.KINDS`.
      loss_terms: metric -> the weight of its mean in the loss.
      spec: the task's entry in the table.
      config: `config.task`.
      labels: names of the classes; empty where the task has none.
    """

    kind: ClassVar[str]
    loss_terms: Mapping[str, float] = {"task_loss": 1.0}

    def __init__(self, spec: "TaskSpec", config: TaskConfig, labels: Sequence[str] = ()):
        """Keeps the settings."""
        self.spec, self.config, self.labels = spec, config, tuple(labels)

    @property
    def num_labels(self) -> int:
        """Outputs of the head."""
        return len(self.labels) or 1

    def reported(self, examples: Sequence[Any]) -> tuple[str, ...]:
        """Names of the metrics of examples; the first chooses the checkpoint, larger is better."""
        del examples  # the same for all, but for tasks whose objective follows from the data
        return self.spec.metrics

    @abc.abstractmethod
    def features(self, examples: Sequence[Any], tokenizer: Tokenizer) -> Features:
        """Rows of the examples, one or more each."""

    def train_features(self, examples: Sequence[Any], tokenizer: Tokenizer) -> Features:
        """Rows of the examples to learn from; by default the same."""
        return self.features(examples, tokenizer)

    @abc.abstractmethod
    def logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Float32 logits [B,N,K] of N decisions a row; dropout is on where keys are given."""

    @abc.abstractmethod
    def targets(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """The right classes, int32 [B,N], and their weights, float32 [B,N]; 0 leaves one out."""

    def loss_counts(self, batch: Batch) -> dict[str, jax.Array]:
        """What the loss is divided by."""
        return {"task_loss": jnp.sum(self.targets(batch)[1])}

    def metrics(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> Metrics:
        """Sums of the loss (nats) and of right decisions, and counts of the work done."""
        labels, weights = self.targets(batch)
        loss, correct = cross_entropy(self.logits(model, batch, dropout_keys_B), labels, weights)
        count = jnp.sum(weights)
        found = {"task_loss": Mean(loss, count), "task_accuracy": Mean(correct, count)}
        return self.work(batch) | found

    def work(self, batch: Batch) -> Metrics:
        """Counts of what the rows really hold."""
        return row_work(batch["attention_mask"] * batch["weights"][:, None])

    @abc.abstractmethod
    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """What `predictions` needs of each row, by name."""

    @abc.abstractmethod
    def predictions(self, outputs: Outputs, features: Features, count: int) -> list[Any]:
        """One prediction for each of `count` examples, from the outputs of their rows."""

    def score(
        self,
        outputs: Outputs,
        features: Features,
        examples: Sequence[Any],
        validation: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """The task's metrics on examples that have labels.

        Args:
          outputs: of the examples' rows.
          features: the rows.
          examples: in the order of the features' owners.
          validation: metrics that the checkpoint in use was chosen by. What was tuned on those
            examples, such as a threshold, is then taken from there and not tuned again.
        """
        del validation  # nothing is tuned where each example has one class or score
        found = np.array(self.predictions(outputs, features, len(examples)))
        return text_metrics(self.spec.metrics, found, np.array([e.label for e in examples]))

    def explained(self, examples: Sequence[Any]) -> list[str]:
        """Lines that say how the metrics on these examples are defined, where names do not."""
        del examples
        return []

    def has_labels(self, examples: Sequence[Any]) -> bool:
        """Whether the examples can be scored."""
        return all(example.label is not None for example in examples)

    def relabelled(self, examples: Sequence[Any], number: Callable[[int], int]) -> list[Any]:
        """The examples with their classes numbered by `number`."""
        return [example._replace(label=number(example.label)) for example in examples]

    @abc.abstractmethod
    def write(
        self,
        output: Path,
        split: str,
        examples: Sequence[Any],
        outputs: Outputs,
        features: Features,
        validation: Mapping[str, float],
    ) -> None:
        """Writes predictions of a split in the task's official format, else as a table."""


@dataclass(frozen=True)
class TaskSpec:
    """A task's entry in the table (`registry.SPECS`): all that is particular to it.

    Attributes:
      name: what `config.task.name` calls it.
      family: the class that computes it.
      read: (name, source) -> examples, from a folder or file.
      read_to_predict: like `read`, for examples to predict: they need no labels, keep the ids of
        their file, and a file is read whole, whatever its name; None reads them as `read` does.
      metrics: what is reported, as `metrics.METRICS` names it; the first chooses the checkpoint,
        larger is better.
      read_tfds: (name, "tfds:NAME", data_dir) -> examples; None where TFDS does not have it.
      recipe: the published settings, if any.
      recipe_v2: those for the second version of the published models, where they differ.
      files: how a leaderboard wants the predictions, if one does.
    """

    name: str
    family: type[FinetuningTask]
    read: Callable[[str, str], TaskData]
    metrics: tuple[str, ...]
    read_tfds: Callable[[str, str, str | None], TaskData] | None = None
    read_to_predict: Callable[[str, str], TaskData] | None = None
    recipe: Recipe | None = None
    recipe_v2: Recipe | None = None
    files: LeaderboardFiles | None = None

    def __post_init__(self) -> None:
        """Checks what would otherwise fail at the first evaluation.

        Raises:
          ValueError: if the metrics cannot be computed, or cannot choose a checkpoint.
        """
        if not self.metrics:
            raise ValueError(f"task {self.name!r}: metrics must not be empty")
        if self.metrics[0] in SMALLER_IS_BETTER:
            raise ValueError(
                f"task {self.name!r}: metrics[0]={self.metrics[0]!r} chooses the checkpoint, and "
                "larger must be better; list another first"
            )
        if self.family.score is FinetuningTask.score:  # the others have metrics of their own
            for metric in self.metrics:
                one_of(f"task {self.name!r}: metrics", metric, METRICS)
