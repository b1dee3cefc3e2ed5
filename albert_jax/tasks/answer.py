"""Answers as spans of a context: SQuAD."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.answer_metrics import best_null_threshold, squad_metrics
from albert_jax.config import TaskConfig
from albert_jax.data.examples import QuestionExample
from albert_jax.data.features import Features, question_features
from albert_jax.losses import cross_entropy
from albert_jax.metrics import Ratio, row_work
from albert_jax.task_metrics import main_metric
from albert_jax.tokenizer import Tokenizer

Batch = dict[str, jax.Array]
LOWEST = -1e9  # the logit of what may not be


class Span(NamedTuple):
    """A candidate: its characters in the context, and the sum of its two logits."""

    begin: int
    end: int
    score: float


class Found(NamedTuple):
    """What a model finds for a question.

    Attributes:
      spans: the best first; empty where no row has a context.
      null_odds: score of no answer less that of the best span.
    """

    spans: list[Span]
    null_odds: float


class Answer:
    """A start and an end logit on every piece; [CLS] stands for no answer.

    Attributes: as of `Classify`.
    """

    kind = "span"
    loss_terms = ("task_loss",)
    num_labels = 2

    def __init__(self, config: TaskConfig, labels: Sequence[str] = ()):
        """Keeps the settings."""
        self.config, self.labels = config, tuple(labels)
        self.best = main_metric(config.name)
        self.may_be_unanswerable = config.name == "squad/v2.0"

    def features(self, examples: Sequence[QuestionExample], tokenizer: Tokenizer) -> Features:
        """Rows of the examples: as many as it takes to see all of the context."""
        c = self.config
        return question_features(examples, tokenizer, c.max_length, c.stride, c.max_question)

    def counts(self, batch: Batch) -> dict[str, jax.Array]:
        """What the loss is divided by: the rows, once for each end of the span."""
        return {"task_loss": 2 * jnp.sum(batch["weights"])}

    def ratios(self, model: Any, batch: Batch, keys_B: jax.Array | None) -> dict[str, Ratio]:
        """The loss, and how often an end is right, as sums; dropout with `keys_B`."""
        logits_B2T = self._logits(model, batch, keys_B)
        labels_B2 = jnp.stack([batch["start"], batch["end"]], axis=1)
        weights_B2 = jnp.broadcast_to(batch["weights"][:, None], labels_B2.shape)
        loss, correct = cross_entropy(logits_B2T, labels_B2, weights_B2)
        count = jnp.sum(weights_B2)
        work = row_work(batch["attention_mask"] * batch["weights"][:, None])
        return work | {"task_loss": Ratio(loss, count), "task_accuracy": Ratio(correct, count)}

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Float32 logits [B,2,T], very low where no span may begin or end."""
        return {"logits": self._logits(model, batch, None)}

    def predictions(
        self, outputs: Sequence[Mapping[str, np.ndarray]], features: Features, count: int
    ) -> list[Found]:
        """The best spans of each question over all of its rows."""
        spans: list[list[Span]] = [[] for _ in range(count)]
        null = np.full(count, np.inf)
        for output, row, owner in zip(outputs, features.rows, features.owners, strict=True):
            start_T, end_T = output["logits"]
            null[owner] = min(null[owner], start_T[0] + end_T[0])
            spans[owner] += self._best_spans(row, start_T, end_T)
        found = []
        for candidates, null_score in zip(spans, null, strict=True):
            ordered = _distinct(sorted(candidates, key=lambda s: -s.score))[: self.config.n_best]
            best = ordered[0].score if ordered else LOWEST
            found.append(Found(ordered, float(null_score - best)))
        return found

    def texts(
        self, found: Sequence[Found], examples: Sequence[QuestionExample], threshold: float
    ) -> dict[str, str]:
        """id -> the best answer; "" where the null odds are above the threshold."""
        answers = {}
        for example, candidates in zip(examples, found, strict=True):
            is_null = self.may_be_unanswerable and candidates.null_odds > threshold
            answers[example.id] = (
                "" if is_null or not candidates.spans else text_of(example, candidates.spans[0])
            )
        return answers

    def score(
        self,
        outputs: Sequence[Mapping[str, np.ndarray]],
        features: Features,
        examples: Sequence[QuestionExample],
    ) -> dict[str, float]:
        """Exact match and F1; for v2.0 at the best threshold, `null_threshold`."""
        found = self.predictions(outputs, features, len(examples))
        texts = self.texts(found, examples, np.inf)
        if not self.may_be_unanswerable:
            return squad_metrics(texts, examples)
        odds = {e.id: f.null_odds for e, f in zip(examples, found, strict=True)}
        threshold = best_null_threshold(texts, examples, odds)
        metrics = squad_metrics(texts, examples, odds, threshold)
        return metrics | {"null_threshold": threshold}

    def _best_spans(self, row: Mapping[str, np.ndarray], start_T: Any, end_T: Any) -> list[Span]:
        slots = np.flatnonzero(row["begins"] >= 0)
        if not slots.size:
            return []
        scores = start_T[slots][:, None] + end_T[slots][None]
        length = slots[None] - slots[:, None]
        scores = np.where((length >= 0) & (length < self.config.max_answer), scores, -np.inf)
        count = min(self.config.n_best, int(np.isfinite(scores).sum()))
        best = np.argsort(-scores, axis=None, kind="stable")[:count]
        starts, ends = np.unravel_index(best, scores.shape)
        return [
            Span(int(row["begins"][slots[s]]), int(row["ends"][slots[e]]), float(scores[s, e]))
            for s, e in zip(starts, ends, strict=True)
        ]

    def _logits(self, model: Any, batch: Batch, keys_B: jax.Array | None) -> jax.Array:
        logits_BT2 = model.span_logits(model.encode(batch, keys_B))
        may_BT = (batch["begins"] >= 0).at[:, 0].set(True)
        return jnp.where(may_BT[:, None], jnp.swapaxes(logits_BT2, 1, 2), LOWEST)


def text_of(example: QuestionExample, span: Span) -> str:
    """The words of a span."""
    return example.context[span.begin : span.end].strip()


def _distinct(spans: Sequence[Span]) -> list[Span]:
    """Without spans that a better one equals (of another row)."""
    seen: dict[tuple[int, int], Span] = {}
    for span in spans:
        seen.setdefault((span.begin, span.end), span)
    return list(seen.values())
