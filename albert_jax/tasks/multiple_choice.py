"""One of several options for a question about a text: RACE."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.model.layers import split_keys
from albert_jax.tasks.base import Mean, cross_entropy, row_work
from albert_jax.tasks.examples import (
    ChoiceExample,
)
from albert_jax.tasks.features import Features, join, stack
from albert_jax.tasks.metrics import main_metric, text_metrics

Batch = dict[str, jax.Array]


class MultipleChoice:
    """A score on the pooled [CLS] of each option's row, and a softmax over the options.

    Attributes: as of `Classification`.
    """

    kind = "multiple_choice"
    loss_terms = ("task_loss",)
    num_labels = 1

    def __init__(self, config: TaskConfig, labels: Sequence[str] = ()):
        """Keeps the settings; options have no names."""
        self.config, self.labels = config, tuple(labels)
        self.best = main_metric(config.name)

    def features(self, examples: Sequence[ChoiceExample], tokenizer: Tokenizer) -> Features:
        """Rows of the examples, each with a part for every option."""
        return choice_features(examples, tokenizer, self.config.max_length)

    def loss_weights(self, batch: Batch) -> dict[str, jax.Array]:
        """What the loss is divided by: the questions."""
        return {"task_loss": jnp.sum(batch["weights"])}

    def metrics(
        self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None
    ) -> dict[str, Mean]:
        """Sums of the loss and of right answers; dropout is on where keys are given."""
        weights_B = batch["weights"]
        logits_BO = self._logits(model, batch, dropout_keys_B)
        loss, correct = cross_entropy(
            logits_BO[:, None], batch["label"][:, None], weights_B[:, None]
        )
        count = jnp.sum(weights_B)
        work = row_work(_flat(batch["attention_mask"] * weights_B[:, None, None]))
        return work | {"task_loss": Mean(loss, count), "task_accuracy": Mean(correct, count)}

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Float32 logits [B,O] of the options."""
        return {"logits": self._logits(model, batch, None)}

    def predictions(
        self, outputs: Sequence[Mapping[str, np.ndarray]], features: Features, count: int
    ) -> list[int]:
        """The best option of each question."""
        del features, count  # one row a question, in order
        return [int(np.argmax(output["logits"])) for output in outputs]

    def score(
        self,
        outputs: Sequence[Mapping[str, np.ndarray]],
        features: Features,
        examples: Sequence[ChoiceExample],
    ) -> dict[str, float]:
        """Accuracy on examples that have answers."""
        found = np.array(self.predictions(outputs, features, len(examples)))
        return text_metrics(self.config.name, found, np.array([e.label for e in examples]))

    def _logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        if dropout_keys_B is not None:
            num_options = batch["input_ids"].shape[1]
            dropout_keys_B = jax.vmap(lambda key: jax.random.split(key, num_options))(
                dropout_keys_B
            ).reshape(-1)
        encoder_keys, head_keys = split_keys(dropout_keys_B, 2)
        names = ("input_ids", "token_type_ids", "attention_mask")
        x_RTD = model.encode({name: _flat(batch[name]) for name in names}, encoder_keys)
        scores_R1 = model.class_logits(x_RTD, self.config.classifier_dropout, head_keys)
        return scores_R1.reshape(batch["input_ids"].shape[:2])


def _flat(x_BOT: jax.Array) -> jax.Array:
    """Rows of all options one after the other, [B·O,T]."""
    return x_BOT.reshape(-1, x_BOT.shape[-1])


def choice_features(
    examples: Sequence[ChoiceExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """A row a question: [options, pieces] of `[CLS] context [SEP] question option [SEP]`.

    The context loses what does not fit: the question and the option are what sets the four
    apart. Where those alone do not fit, their last pieces stay, as options come last. An option
    fills every gap "_" of its question, where it has some.

    Source: google-research/albert race_utils.py.
    """
    contexts = tokenizer.encode_batch([e.context for e in examples])
    rows, contexts_cut, options_cut = [], 0, 0
    for example, context in zip(examples, contexts, strict=True):
        endings = [_ending(example.question, option) for option in example.options]
        parts, is_cut = [], False
        for ending in tokenizer.encode_batch(endings):
            kept = ending[-max(max_length - 3 - bool(context), 1) :]
            room = max(max_length - 3 - len(kept), 0)
            options_cut += len(kept) < len(ending)
            is_cut |= len(context) > room
            parts.append(join(context[:room], kept, max_length)[0])
        contexts_cut += is_cut
        row = {name: stack([part[name] for part in parts], name) for name in parts[0]}
        if example.label is not None:
            row["label"] = np.array(example.label, np.int32)
        rows.append(row)
    notes = {"contexts cut": contexts_cut, "options cut": options_cut}
    return Features(rows, np.arange(len(rows)), notes)


def _ending(question: str, option: str) -> str:
    """The question with the option in its gaps, kept from growing together with a word there."""

    def fill(gap: re.Match[str]) -> str:
        before, after = question[: gap.start()][-1:], question[gap.end() :][:1]
        return " " * before.isalnum() + option + " " * after.isalnum()

    return re.sub("_+", fill, question) if "_" in question else f"{question} {option}"
