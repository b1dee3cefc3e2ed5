"""Classification and regression of texts and text pairs: GLUE and your own tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from albert_jax.data.tokenizers import Tokenizer
from albert_jax.model.layers import split_keys
from albert_jax.tasks.base import Batch, Mean, Metrics, squared_error
from albert_jax.tasks.examples import TextExample
from albert_jax.tasks.features import Features, join
from albert_jax.tasks.finetuning import FinetuningTask, Outputs
from albert_jax.tasks.submissions import write_text_predictions


class Classification(FinetuningTask):
    """A classifier on the pooled [CLS]; without labels, a regression on its only output."""

    kind = "classification"

    def features(self, examples: Sequence[TextExample], tokenizer: Tokenizer) -> Features:
        """Returns one row for each text or pair."""
        return text_features(examples, tokenizer, self.config.max_length)

    def logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Returns float32 logits [B,1,K]."""
        encoder_keys, head_keys = split_keys(dropout_keys_B, 2)
        x_BTD = model.encode(batch, encoder_keys)
        return model.class_logits(x_BTD, self.config.classifier_dropout, head_keys)[:, None]

    def targets(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns classes (int32) or scores (float32) [B,1], and their weights."""
        return batch["label"][:, None], batch["weights"][:, None]

    def loss_counts(self, batch: Batch) -> dict[str, jax.Array]:
        """Returns the divisor of the loss: the number of rows, without those that only pad."""
        return {"task_loss": jnp.sum(batch["weights"])}

    def metrics(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> Metrics:
        """Returns sums of the loss (nats, or squared score units) and of correct classes."""
        if self.labels:
            return super().metrics(model, batch, dropout_keys_B)
        scores_B = self.logits(model, batch, dropout_keys_B)[:, 0, 0]
        loss = squared_error(scores_B, batch["label"], batch["weights"])
        return self.work(batch) | {"task_loss": Mean(loss, jnp.sum(batch["weights"]))}

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns float32 logits [B,K] of each row."""
        return {"logits": self.logits(model, batch, None)[:, 0]}

    def predictions(self, outputs: Outputs, features: Features, count: int) -> list[float]:
        """Returns the class index, or the score, of each text."""
        del features, count  # one row per text, in order
        if self.labels:
            return [int(np.argmax(output["logits"])) for output in outputs]
        return [float(output["logits"][0]) for output in outputs]

    def write(
        self,
        output: Path,
        split: str,
        examples: Sequence[TextExample],
        outputs: Outputs,
        features: Features,
        validation: Mapping[str, float],
    ) -> None:
        """Writes the leaderboard's file, or a table with class probabilities."""
        del validation
        found = np.array(self.predictions(outputs, features, len(examples)))
        ids = [example.id for example in examples]
        probabilities = None
        if self.labels:
            probabilities = softmax(np.stack([o["logits"] for o in outputs]), axis=-1)
        write_text_predictions(
            self.spec.files,
            output,
            split,
            ids,
            found,
            self.labels,
            probabilities,
            [example.columns for example in examples],
        )


def text_features(
    examples: Sequence[TextExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """Returns a row per text or pair; `label` is its class (int32) or score (float32), if any."""
    texts = tokenizer.encode_batch([e.text for e in examples])
    pairs = tokenizer.encode_batch([e.pair or "" for e in examples])
    rows, cut = [], 0
    for example, text, pair in zip(examples, texts, pairs, strict=True):
        row, is_cut = join(tokenizer.special, text, pair, max_length)
        cut += is_cut
        if example.label is not None:
            kind = np.float32 if isinstance(example.label, float) else np.int32
            row["label"] = np.array(example.label, kind)
        rows.append(row)
    return Features(rows, np.arange(len(rows)), {"texts cut": cut})
