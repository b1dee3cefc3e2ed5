"""Tags of words: named entities."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.data.examples import TaggedExample
from albert_jax.data.features import Features, tag_features
from albert_jax.losses import cross_entropy
from albert_jax.metrics import Ratio, row_work
from albert_jax.model.layers import split_keys
from albert_jax.task_metrics import entity_metrics, main_metric
from albert_jax.tokenizer import Tokenizer

Batch = dict[str, jax.Array]


class Tag:
    """A classifier on every piece; the first piece of a word speaks for it.

    Attributes: as of `Classify`.
    """

    kind = "tagging"
    loss_terms = ("task_loss",)

    def __init__(self, config: TaskConfig, labels: Sequence[str]):
        """Keeps the settings."""
        self.config, self.labels = config, tuple(labels)
        self.num_labels = len(labels)
        self.best = main_metric(config.name)

    def features(self, examples: Sequence[TaggedExample], tokenizer: Tokenizer) -> Features:
        """Rows of the examples: a sentence each, or several where it is too long."""
        return tag_features(examples, tokenizer, self.config.max_length)

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """What the loss is divided by: the words."""
        return {"task_loss": jnp.sum(self._weights(batch))}

    def ratios(self, model: Any, batch: Batch, keys_B: jax.Array | None) -> dict[str, Ratio]:
        """The loss, and how often it is right, as sums; dropout is on where `keys_B` are given."""
        weights_BT = self._weights(batch)
        tags_BT = jnp.maximum(batch["tags"], 0)
        loss, correct = cross_entropy(self._logits(model, batch, keys_B), tags_BT, weights_BT)
        count = jnp.sum(weights_BT)
        work = row_work(batch["attention_mask"] * batch["weights"][:, None])
        return work | {"task_loss": Ratio(loss, count), "task_accuracy": Ratio(correct, count)}

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Float32 log-probabilities [B,T,K] at each piece."""
        return {"log_probs": jax.nn.log_softmax(self._logits(model, batch, None))}

    def predictions(
        self, outputs: Sequence[Mapping[str, np.ndarray]], features: Features, count: int
    ) -> list[list[str]]:
        """A tag for each word of each of `count` examples."""
        tagged: list[dict[int, str]] = [{} for _ in range(count)]
        for output, row, owner in zip(outputs, features.rows, features.owners, strict=True):
            best_T = np.argmax(output["log_probs"], axis=-1)
            for slot in np.flatnonzero(row["words"] >= 0):
                tagged[owner][int(row["words"][slot])] = self.labels[best_T[slot]]
        return [[tags[i] for i in sorted(tags)] for tags in tagged]

    def score(
        self,
        outputs: Sequence[Mapping[str, np.ndarray]],
        features: Features,
        examples: Sequence[TaggedExample],
    ) -> dict[str, float]:
        """Entity precision, recall and F1 on examples that have tags."""
        gold = [[self.labels[tag] for tag in e.tags or ()] for e in examples]
        return entity_metrics(self.predictions(outputs, features, len(examples)), gold)

    def _weights(self, batch: Batch) -> jax.Array:
        return (batch["tags"] >= 0) * batch["weights"][:, None]

    def _logits(self, model: Any, batch: Batch, keys_B: jax.Array | None) -> jax.Array:
        encoder_keys, head_keys = split_keys(keys_B, 2)
        x_BTD = model.encode(batch, encoder_keys)
        return model.tag_logits(x_BTD, self.config.classifier_dropout, head_keys)
