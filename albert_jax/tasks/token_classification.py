"""Tags of words: named entities."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.data.tokenizer import UNK, Tokenizer
from albert_jax.model.layers import split_keys
from albert_jax.tasks.base import Mean, cross_entropy, row_work
from albert_jax.tasks.examples import (
    TaggedExample,
)
from albert_jax.tasks.features import NONE, Features, join
from albert_jax.tasks.metrics import entity_metrics, main_metric

Batch = dict[str, jax.Array]


class TokenClassification:
    """A classifier on every piece; the first piece of a word speaks for it.

    Attributes: as of `Classification`.
    """

    kind = "token_classification"
    loss_terms = ("task_loss",)

    def __init__(self, config: TaskConfig, labels: Sequence[str]):
        """Keeps the settings."""
        self.config, self.labels = config, tuple(labels)
        self.num_labels = len(labels)
        self.best = main_metric(config.name)

    def features(self, examples: Sequence[TaggedExample], tokenizer: Tokenizer) -> Features:
        """Rows of the examples: a sentence each, or several where it is too long."""
        return tag_features(examples, tokenizer, self.config.max_length)

    def loss_weights(self, batch: Batch) -> dict[str, jax.Array]:
        """What the loss is divided by: the words."""
        return {"task_loss": jnp.sum(self._weights(batch))}

    def metrics(
        self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None
    ) -> dict[str, Mean]:
        """Sums of the loss and of right answers; dropout is on where keys are given."""
        weights_BT = self._weights(batch)
        tags_BT = jnp.maximum(batch["tags"], 0)
        loss, correct = cross_entropy(
            self._logits(model, batch, dropout_keys_B), tags_BT, weights_BT
        )
        count = jnp.sum(weights_BT)
        work = row_work(batch["attention_mask"] * batch["weights"][:, None])
        return work | {"task_loss": Mean(loss, count), "task_accuracy": Mean(correct, count)}

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

    def _logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        encoder_keys, head_keys = split_keys(dropout_keys_B, 2)
        x_BTD = model.encode(batch, encoder_keys)
        return model.tag_logits(x_BTD, self.config.classifier_dropout, head_keys)


def tag_features(
    examples: Sequence[TaggedExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """A row a sentence, or several where it is too long; every word is in exactly one row.

    `words` has the number of a word at its first piece, and `tags` its tag, if it has one;
    a word of no piece, as of control characters alone, is one unknown piece. Of a word that is
    longer than a row the first pieces stay.
    """
    rows, owners, split, cut = [], [], 0, 0
    for i, example in enumerate(examples):
        pieces = [ids or [UNK] for ids in tokenizer.encode_batch(list(example.words))]
        parts = list(_split_words(pieces, max_length - 2)) if pieces else []
        split += len(parts) > 1
        for part in parts:
            row, is_cut = join([p for w in part for p in pieces[w]], [], max_length)
            cut += is_cut
            starts = np.cumsum([1, *(len(pieces[w]) for w in part)])[:-1]
            words, tags = np.full((2, len(row["input_ids"])), NONE, np.int32)
            words[starts] = part
            if example.tags is not None:
                tags[starts] = np.array(example.tags, np.int32)[part]
            rows.append(row | {"words": words, "tags": tags})
            owners.append(i)
    notes = {"sentences split": split, "words cut": cut}
    return Features(rows, np.array(owners, np.int64), notes)


def _split_words(pieces: Sequence[Sequence[int]], room: int) -> Iterator[list[int]]:
    """Yields runs of word indices whose pieces fit; a word that alone does not is cut later."""
    part, used = [], 0
    for word, ids in enumerate(pieces):
        if part and used + len(ids) > room:
            yield part
            part, used = [], 0
        part.append(word)
        used += len(ids)
    yield part
