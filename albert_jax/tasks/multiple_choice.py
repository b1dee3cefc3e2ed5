"""Multiple choice: one of several options for a question about a text, as in RACE."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from albert_jax.data.tokenizers import Tokenizer
from albert_jax.model.layers import split_keys
from albert_jax.tasks.base import Batch, Metrics, flat, row_work, rows_of_parts
from albert_jax.tasks.examples import ChoiceExample
from albert_jax.tasks.features import Features, join, stack
from albert_jax.tasks.finetuning import FinetuningTask, Outputs
from albert_jax.tasks.submissions import write_choices


class MultipleChoice(FinetuningTask):
    """A score on the pooled [CLS] of each option's row, and a softmax over the options."""

    kind = "multiple_choice"

    def features(self, examples: Sequence[ChoiceExample], tokenizer: Tokenizer) -> Features:
        """Returns a row for each question, with a part for every option."""
        return choice_features(examples, tokenizer, self.config.max_length)

    def logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Returns float32 scores [B,1,O] of the options."""
        rows, dropout_keys_R = rows_of_parts(batch, dropout_keys_B)
        encoder_keys, head_keys = split_keys(dropout_keys_R, 2)
        x_RTD = model.encode(rows, encoder_keys)
        scores_R1 = model.class_logits(x_RTD, self.config.classifier_dropout, head_keys)
        return scores_R1.reshape(batch["input_ids"].shape[:2])[:, None]

    def targets(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns the correct option of each question, and its weight."""
        return batch["label"][:, None], batch["weights"][:, None]

    def work(self, batch: Batch) -> Metrics:
        """Returns the work in the options' rows, without padding."""
        return row_work(flat(batch["attention_mask"] * batch["weights"][:, None, None]))

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns float32 logits [B,O] of the options."""
        return {"logits": self.logits(model, batch, None)[:, 0]}

    def predictions(self, outputs: Outputs, features: Features, count: int) -> list[int]:
        """Returns the best option of each question."""
        del features, count  # one row per question, in order
        return [int(np.argmax(output["logits"])) for output in outputs]

    def write(
        self,
        output: Path,
        split: str,
        examples: Sequence[ChoiceExample],
        outputs: Outputs,
        features: Features,
        validation: Mapping[str, float],
    ) -> None:
        """Writes an answer letter for each question."""
        del validation
        found = np.array(self.predictions(outputs, features, len(examples)))
        write_choices(output, split, [example.id for example in examples], found)


def choice_features(
    examples: Sequence[ChoiceExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """Returns a row [options, tokens] per question: `[CLS] context [SEP] question option [SEP]`.

    The context is cut to fit, because only question and option distinguish the four. If those
    two do not fit on their own, their last tokens are kept, since the option comes last. An
    option fills every gap "_" of its question, if it has any.

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
            parts.append(join(tokenizer.special, context[:room], kept, max_length)[0])
        contexts_cut += is_cut
        row = {name: stack([part[name] for part in parts], name) for name in parts[0]}
        if example.label is not None:
            row["label"] = np.array(example.label, np.int32)
        rows.append(row)
    notes = {"contexts cut": contexts_cut, "options cut": options_cut}
    return Features(rows, np.arange(len(rows)), notes)


def _ending(question: str, option: str) -> str:
    """Returns the question with the option in its gaps, separated by spaces from nearby words."""

    def fill(gap: re.Match[str]) -> str:
        before, after = question[: gap.start()][-1:], question[gap.end() :][:1]
        return " " * before.isalnum() + option + " " * after.isalnum()

    return re.sub("_+", fill, question) if "_" in question else f"{question} {option}"
