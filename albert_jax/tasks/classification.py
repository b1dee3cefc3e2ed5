"""Classes or scores of texts and pairs: GLUE and one's own tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.model.layers import split_keys
from albert_jax.tasks.base import Mean, cross_entropy, row_work, squared_error
from albert_jax.tasks.examples import (
    TextExample,
)
from albert_jax.tasks.features import Features, join
from albert_jax.tasks.metrics import main_metric, text_metrics

Batch = dict[str, jax.Array]


class Classification:
    """A classifier on the pooled [CLS]; with no labels, a regression on its only output.

    Attributes:
      kind: of the model, a key of `convert.weights.KINDS`.
      num_labels: outputs of the classifier.
      best: the metric by which the best checkpoint is chosen.
    """

    kind = "classification"
    loss_terms = ("task_loss",)

    def __init__(self, config: TaskConfig, labels: Sequence[str]):
        """Keeps the settings; without `labels` the task is a regression."""
        self.config, self.labels = config, tuple(labels)
        self.num_labels = len(labels) or 1
        self.best = main_metric(config.name)

    def features(self, examples: Sequence[TextExample], tokenizer: Tokenizer) -> Features:
        """Rows of the examples."""
        return text_features(examples, tokenizer, self.config.max_length)

    def loss_weights(self, batch: Batch) -> dict[str, jax.Array]:
        """What the loss is divided by: the rows that are not there to fill the batch."""
        return {"task_loss": jnp.sum(batch["weights"])}

    def metrics(
        self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None
    ) -> dict[str, Mean]:
        """Sums of the loss and of right answers; dropout is on where keys are given."""
        logits_BK, weights_B = self._logits(model, batch, dropout_keys_B), batch["weights"]
        count, work = jnp.sum(weights_B), row_work(batch["attention_mask"] * weights_B[:, None])
        if not self.labels:
            loss = squared_error(logits_BK[:, 0], batch["label"], weights_B)
            return work | {"task_loss": Mean(loss, count)}
        loss, correct = cross_entropy(
            logits_BK[:, None], batch["label"][:, None], weights_B[:, None]
        )
        return work | {"task_loss": Mean(loss, count), "task_accuracy": Mean(correct, count)}

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Float32 logits [B,K] of each row."""
        return {"logits": self._logits(model, batch, None)}

    def predictions(
        self, outputs: Sequence[Mapping[str, np.ndarray]], features: Features, count: int
    ) -> list[float]:
        """The class index, or the score, of each text."""
        del features, count  # one row a text, in order
        if self.labels:
            return [int(np.argmax(output["logits"])) for output in outputs]
        return [float(output["logits"][0]) for output in outputs]

    def score(
        self,
        outputs: Sequence[Mapping[str, np.ndarray]],
        features: Features,
        examples: Sequence[TextExample],
    ) -> dict[str, float]:
        """The task's metrics on examples that have labels."""
        found = np.array(self.predictions(outputs, features, len(examples)))
        return text_metrics(self.config.name, found, np.array([e.label for e in examples]))

    def _logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        encoder_keys, head_keys = split_keys(dropout_keys_B, 2)
        x_BTD = model.encode(batch, encoder_keys)
        return model.class_logits(x_BTD, self.config.classifier_dropout, head_keys)


def text_features(
    examples: Sequence[TextExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """A row a text or pair; `label` is its class (int32) or score (float32), if it has one."""
    texts = tokenizer.encode_batch([e.text for e in examples])
    pairs = tokenizer.encode_batch([e.pair or "" for e in examples])
    rows, cut = [], 0
    for example, text, pair in zip(examples, texts, pairs, strict=True):
        row, is_cut = join(text, pair, max_length)
        cut += is_cut
        if example.label is not None:
            kind = np.float32 if isinstance(example.label, float) else np.int32
            row["label"] = np.array(example.label, kind)
        rows.append(row)
    return Features(rows, np.arange(len(rows)), {"texts cut": cut})
