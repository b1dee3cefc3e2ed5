"""Translation: a decoder writes the target, token by token, with the source before its eyes."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.data.files import replacing
from albert_jax.data.tokenizers import SpecialIds, Tokenizer
from albert_jax.model.decoder import Step, lengthened
from albert_jax.model.layers import split_keys
from albert_jax.tasks.base import Batch, Mean, Metrics, row_work
from albert_jax.tasks.examples import PairExample
from albert_jax.tasks.features import FeatureRow, Features, join
from albert_jax.tasks.finetuning import FinetuningTask, Outputs, TaskSpec
from albert_jax.tasks.readers.parallel import languages_of, parallel_from_tfds, read_parallel
from albert_jax.tasks.search import Hypotheses, SearchSettings, beam_search
from albert_jax.tasks.translation_metrics import signatures, translation_metrics


class Translation(FinetuningTask):
    """An encoder-decoder, trained on pairs of sentences with label smoothing."""

    kind = "translation"

    @property
    def target_language(self) -> str:
        """The code of the language that is translated into."""
        return languages_of(self.spec.name)[1]

    def features(self, examples: Sequence[PairExample], tokenizer: Tokenizer) -> Features:
        """Returns a row for each pair or source; what is longer than `max_length` is cut."""
        return self._features(examples, tokenizer)[0]

    def train_features(self, examples: Sequence[PairExample], tokenizer: Tokenizer) -> Features:
        """Returns rows without the pairs of which a side is longer than `max_length`.

        Raises:
          ValueError: if no pair is left.
        """
        found, is_cut = self._features(examples, tokenizer)
        kept = np.flatnonzero(~is_cut)
        if not kept.size:
            raise ValueError(
                f"config.task.max_length={self.config.max_length}: every pair is longer; raise it"
            )
        notes = {"training pairs left out, longer than task.max_length": int(is_cut.sum())}
        return found._replace(rows=[found.rows[i] for i in kept], owners=kept, notes=notes)

    def _features(
        self, examples: Sequence[PairExample], tokenizer: Tokenizer
    ) -> tuple[Features, np.ndarray]:
        special, longest = tokenizer.special, self.config.max_length
        sources = tokenizer.encode_batch([e.source for e in examples])
        targets = tokenizer.encode_batch([e.target or "" for e in examples])
        rows, is_cut = [], np.zeros(len(examples), bool)
        has_targets = self.has_labels(examples)
        for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
            row, is_cut[i] = join(special, source, [], longest)
            if has_targets:
                is_cut[i] |= len(target) >= longest
                row |= _target_row(special, list(target)[: longest - 1])
            rows.append(row)
        notes = {"pairs cut to task.max_length": int(is_cut.sum())}
        return Features(rows, np.arange(len(rows)), notes, tokenizer), is_cut

    def logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Returns float32 logits_BTV of the target's tokens, each from those before it."""
        encoder_keys, decoder_keys = split_keys(dropout_keys_B, 2)
        memory = model.memory(batch, encoder_keys)
        return model.decode(batch["target_ids"], memory, decoder_keys)

    def targets(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns the tokens to predict [B,T] and their weights."""
        return batch["target_labels"], batch["target_weights"] * batch["weights"][:, None]

    def metrics(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> Metrics:
        """Returns sums of the smoothed loss and of the cross entropy (nats), and right tokens."""
        labels, weights = self.targets(batch)
        logits = self.logits(model, batch, dropout_keys_B)
        loss, entropy, correct = smoothed_cross_entropy(
            logits, labels, weights, self.config.translation.label_smoothing
        )
        count = jnp.sum(weights)
        found = {
            "task_loss": Mean(loss, count),
            "cross_entropy": Mean(entropy, count),
            "task_accuracy": Mean(correct, count),
        }
        return self.work(batch) | found

    def work(self, batch: Batch) -> Metrics:
        """Returns counts of the source's and the target's tokens, without padding."""
        weights = batch["weights"][:, None]
        target = row_work(batch["target_weights"] * weights)
        source_B = jnp.sum(batch["attention_mask"] * weights, axis=-1)
        cross = jnp.sum(source_B * jnp.sum(batch["target_weights"], axis=-1))
        return row_work(batch["attention_mask"] * weights) | {
            "target_tokens": target["tokens"],
            "target_pairs": target["attention_pairs"],
            "cross_pairs": Mean(cross, 0.0),
        }

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns the best translation and, where there is a target, its cross entropy."""
        found = self.search(model, batch, self.config.translation.validation_beam)
        outputs = {"ids": found.ids[:, 0]}
        if "target_ids" in batch:
            labels, weights = self.targets(batch | {"weights": jnp.ones(len(batch["input_ids"]))})
            logits_BTV = self.logits(model, batch, None)
            losses = jax.vmap(partial(smoothed_cross_entropy, smoothing=0.0))(
                logits_BTV, labels, weights
            )
            outputs |= {
                "entropy": losses[1],
                "tokens": jnp.sum(weights, axis=-1),
            }
        return outputs

    def search(self, model: Any, batch: Batch, beam: int) -> Hypotheses:
        """Returns the `beam` best translations of each source.

        They have at most 2·n + 16 tokens for a source of n, whatever it shares a batch with, and
        at most `max_length`.
        """
        ids_BS, config, memory = jnp.asarray(batch["input_ids"]), self.config, model.memory(batch)
        sources, longest = len(ids_BS), min(config.max_length, limit_of(ids_BS.shape[1]))
        limits_B = jnp.minimum(limit_of(jnp.sum(batch["attention_mask"], axis=-1)), longest)
        chosen = config.translation
        settings = SearchSettings(beam, longest, chosen.length_penalty, chosen.penalty)
        # A source is [CLS] text [SEP], so it shows the ids that begin and end a text.
        begin, end = ids_BS[0, 0], ids_BS[0][jnp.sum(batch["attention_mask"][0]) - 1]

        def decode(
            tokens_BK: jax.Array, cache: Any, position: jax.Array, seen: jax.Array
        ) -> tuple[jax.Array, Any]:
            return model.decode_step(tokens_BK, memory, Step(cache, position, seen))

        def room(tokens: int, cache: Any) -> Any:
            if cache is None:
                return model.decoder.new_cache((sources, tokens, beam), *model.cache_shape)
            return lengthened(cache, tokens)

        return beam_search(decode, room, sources, (begin, end), limits_B, settings)

    def predictions(self, outputs: Outputs, features: Features, count: int) -> list[str]:
        """Returns a line of text for each source."""
        del count  # a row per source
        return [
            "" if is_blank(row) else text_of(output["ids"], features.tokenizer)
            for output, row in zip(outputs, features.rows, strict=True)
        ]

    def score(
        self,
        outputs: Outputs,
        features: Features,
        examples: Sequence[PairExample],
        validation: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """Returns BLEU and chrF (0 to 100) and the cross entropy (nats per token)."""
        del validation
        found = self.predictions(outputs, features, len(examples))
        entropy = sum(float(output["entropy"]) for output in outputs)
        tokens = sum(float(output["tokens"]) for output in outputs)
        references = [example.target or "" for example in examples]
        scores = translation_metrics(found, references, self.target_language)
        return {**scores, "cross_entropy": entropy / tokens}

    def explained(self, examples: Sequence[PairExample]) -> list[str]:
        """Returns sacreBLEU's signature of each metric."""
        found = signatures(self.target_language, len(examples))
        return [f"{name}: {signature}" for name, signature in found.items()]

    def has_labels(self, examples: Sequence[PairExample]) -> bool:
        """Whether every source has a translation to compare with."""
        return all(example.target is not None for example in examples)

    def write(
        self,
        output: Path,
        split: str,
        examples: Sequence[PairExample],
        outputs: Outputs,
        features: Features,
        validation: Mapping[str, float],
    ) -> None:
        """Writes `SPLIT_predictions.LANGUAGE`, a line for every line of the source."""
        del validation
        lines = self.predictions(outputs, features, len(examples))
        output.mkdir(parents=True, exist_ok=True)
        with replacing(output / f"{split}_predictions.{self.target_language}") as path:
            path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def limit_of(length: Any) -> Any:
    """Returns how long a translation may be, in tokens, given the length of its source."""
    return 2 * length + 16


def _target_row(special: SpecialIds, target: Sequence[int]) -> FeatureRow:
    return {
        "target_ids": np.array([special.cls, *target], np.int32),
        "target_labels": np.array([*target, special.sep], np.int32),
        "target_weights": np.ones(len(target) + 1, np.float32),
    }


def is_blank(row: FeatureRow) -> bool:
    """Whether a source has no token but [CLS] and [SEP]."""
    return len(row["input_ids"]) == 2


def text_of(ids: np.ndarray, tokenizer: Tokenizer | None) -> str:
    """Returns the text of ids up to the first [SEP], on one line."""
    assert tokenizer is not None, "features of a translation keep their tokenizer"
    ends = np.flatnonzero(ids == tokenizer.special.sep)
    kept = ids[: ends[0]] if ends.size else ids
    # A model's table may be longer than its vocabulary.
    kept = np.where(kept < tokenizer.vocab_size, kept, tokenizer.special.unk)
    return " ".join(tokenizer.decode(kept.tolist()).split())


def smoothed_cross_entropy(
    logits: jax.Array, labels: jax.Array, weights: jax.Array, smoothing: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns weighted sums of the smoothed loss, the cross entropy (nats) and right predictions.

    The smoothed target has 1 - smoothing on the label and the rest spread over all V tokens.

    Args:
      logits: float32 [...,V].
      labels: int32 [...].
      weights: float32 [...].
      smoothing: 0 for none.

    Source: arXiv:1512.00567, section 7.
    """
    log_sums = jax.nn.logsumexp(logits, axis=-1)
    # A masked sum instead of a gather, whose gradient would be a scatter over all logits.
    tokens = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    label_logits = jnp.sum(jnp.where(tokens == labels[..., None], logits, 0.0), axis=-1)
    entropies = log_sums - label_logits
    losses = (1 - smoothing) * entropies + smoothing * (log_sums - jnp.mean(logits, axis=-1))
    right = label_logits >= jnp.max(logits, axis=-1)
    return jnp.sum(losses * weights), jnp.sum(entropies * weights), jnp.sum(right * weights)


def translation_spec(name: str) -> TaskSpec:
    """Returns the table's entry of `translation/SOURCE-TARGET`.

    Raises:
      ValueError: if the name is not of that form.
    """
    languages_of(name)
    return TaskSpec(
        name=name,
        family=Translation,
        read=read_parallel,
        read_to_predict=partial(read_parallel, to_predict=True),
        read_tfds=parallel_from_tfds,
        metrics=("bleu", "chrf", "cross_entropy"),
    )
