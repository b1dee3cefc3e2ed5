"""Token classification: tags of words, as for named entities."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.data.tokenizers import Tokenizer
from albert_jax.model.layers import split_keys
from albert_jax.tasks.base import Batch
from albert_jax.tasks.examples import TaggedExample
from albert_jax.tasks.features import NONE, Features, join
from albert_jax.tasks.finetuning import FinetuningTask, Outputs
from albert_jax.tasks.metrics import entity_metrics
from albert_jax.tasks.submissions import write_tags


class TokenClassification(FinetuningTask):
    """A classifier on every token; a word takes the tag of its first token."""

    kind = "token_classification"

    def features(self, examples: Sequence[TaggedExample], tokenizer: Tokenizer) -> Features:
        """Returns a row for each sentence, or several if it is too long."""
        return tag_features(examples, tokenizer, self.config.max_length)

    def logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Returns float32 logits [B,T,K] for each token."""
        encoder_keys, head_keys = split_keys(dropout_keys_B, 2)
        x_BTD = model.encode(batch, encoder_keys)
        return model.tag_logits(x_BTD, self.config.classifier_dropout, head_keys)

    def targets(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns the tags [B,T], with weight only on the first token of each word."""
        weights_BT = (batch["tags"] >= 0) * batch["weights"][:, None]
        return jnp.maximum(batch["tags"], 0), weights_BT

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns float32 log-probabilities [B,T,K] for each token."""
        return {"log_probs": jax.nn.log_softmax(self.logits(model, batch, None))}

    def predictions(self, outputs: Outputs, features: Features, count: int) -> list[list[str]]:
        """Returns a tag for each word of each of `count` examples."""
        tagged: list[dict[int, str]] = [{} for _ in range(count)]
        for output, row, owner in zip(outputs, features.rows, features.owners, strict=True):
            best_T = np.argmax(output["log_probs"], axis=-1)
            for slot in np.flatnonzero(row["words"] >= 0):
                tagged[owner][int(row["words"][slot])] = self.labels[best_T[slot]]
        return [[tags[i] for i in sorted(tags)] for tags in tagged]

    def score(
        self,
        outputs: Outputs,
        features: Features,
        examples: Sequence[TaggedExample],
        validation: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """Returns entity precision, recall and F1 on tagged examples."""
        del validation  # nothing is tuned on it
        found = self.predictions(outputs, features, len(examples))
        return entity_metrics(found, [self._names(example) for example in examples])

    def has_labels(self, examples: Sequence[TaggedExample]) -> bool:
        """Returns whether every sentence has tags."""
        return all(example.tags is not None for example in examples)

    def relabelled(
        self, examples: Sequence[TaggedExample], number: Callable[[int], int]
    ) -> list[TaggedExample]:
        """Returns the examples with their tags renumbered by `number`."""
        return [e._replace(tags=tuple(map(number, e.tags or ()))) for e in examples]

    def write(
        self,
        output: Path,
        split: str,
        examples: Sequence[TaggedExample],
        outputs: Outputs,
        features: Features,
        validation: Mapping[str, float],
    ) -> None:
        """Writes words and tags in columns, with the true tags between them if known."""
        del validation
        gold = None
        if self.has_labels(examples):
            gold = [self._names(example) for example in examples]
        found = self.predictions(outputs, features, len(examples))
        write_tags(output, split, [example.words for example in examples], found, gold)

    def _names(self, example: TaggedExample) -> list[str]:
        return [self.labels[tag] for tag in example.tags or ()]


def tag_features(
    examples: Sequence[TaggedExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """Returns a row per sentence, or several if it is too long; every word is in exactly one row.

    `words` has the number of a word at its first token, and `tags` its tag, if it has one. A word
    without tokens, such as one of control characters alone, becomes one unknown token. A word
    longer than a row keeps its first tokens.
    """
    rows, owners, split, cut = [], [], 0, 0
    for i, example in enumerate(examples):
        pieces = [
            ids or [tokenizer.special.unk] for ids in tokenizer.encode_batch(list(example.words))
        ]
        parts = list(_split_words(pieces, max_length - 2)) if pieces else []
        split += len(parts) > 1
        for part in parts:
            row, is_cut = join(
                tokenizer.special, [p for w in part for p in pieces[w]], [], max_length
            )
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
    """Yields runs of word indices whose tokens fit; a single word that does not is cut later."""
    part, used = [], 0
    for word, ids in enumerate(pieces):
        if part and used + len(ids) > room:
            yield part
            part, used = [], 0
        part.append(word)
        used += len(ids)
    yield part
