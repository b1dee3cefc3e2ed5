"""A model to use: masks, and once it is fine-tuned classes of texts, answers, tags, choices."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from albert_jax.config import TaskConfig
from albert_jax.convert.mapping import abstract_model
from albert_jax.convert.weights import Weights
from albert_jax.data.buckets import eval_batches
from albert_jax.data.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from albert_jax.data.features import Features
from albert_jax.pretrained import Pretrained
from albert_jax.tasks import make_task
from albert_jax.tasks.answer import text_of
from albert_jax.tokenizer import Tokenizer

# Rows that are computed together.
_BATCH = 32
# What a model that was fine-tuned elsewhere is taken for.
_TASKS = {"classification": "classification", "tagging": "conll2003", "span": "squad/v2.0",
          "choice": "race"}  # fmt: skip


class Classified(NamedTuple):
    """The likeliest class of a text, and the probability of each; the score of a regression."""

    label: str | float
    probabilities: dict[str, float]


class Answered(NamedTuple):
    """A span of the context as answer ("" for none), where it is, and its probability."""

    text: str
    start: int
    end: int
    probability: float


class Tagged(NamedTuple):
    """A word, its tag and the tag's probability."""

    word: str
    tag: str
    probability: float


class Chosen(NamedTuple):
    """The likeliest option, its number from 0, and the probability of each."""

    option: str
    index: int
    probabilities: list[float]


class Model(Pretrained):
    """What `albert_jax.load` returns: masks to fill, or a task that it was fine-tuned for.

    Attributes:
      kind: what it is for, a key of `convert.weights.KINDS`.
      labels: names of its classes; empty for a regression, for answers and for choices.
    """

    def __init__(self, weights: Weights, params: Any, tokenizer: Tokenizer | None):
        """Wraps weights, placed on a device as `params`."""
        super().__init__(weights.config, params, tokenizer)
        self.kind, self.validation = weights.kind, weights.validation
        self.labels: tuple[str, ...] = ()
        self.task: Any = None
        if self.kind not in _TASKS:
            return
        config = weights.task or TaskConfig(name=_TASKS[weights.kind])
        limit = weights.config.max_position_embeddings
        config = dataclasses.replace(config, max_length=min(config.max_length, limit))
        labels = weights.labels
        if "classifier" in weights.params and not labels and weights.kind != "choice":
            count = weights.params["classifier"]["bias"].shape[0]
            labels = tuple(f"LABEL_{i}" for i in range(count)) if count > 1 else ()
        self.task, self.labels = make_task(config, labels), labels
        graphdef, _ = nnx.split(abstract_model(weights.config, params), nnx.Param)
        self._outputs = jax.jit(
            lambda params, batch: self.task.outputs(nnx.merge(graphdef, params), batch)
        )

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[Classified]:
        """The class, or the score, of each text, or of each text with its pair.

        Raises:
          ValueError: for another kind of model, or as many pairs as texts are not given.
        """
        self._require("classification")
        if isinstance(texts, str) or isinstance(pairs, str):
            raise ValueError("texts and pairs are lists of strings; put one text in a list")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts but {len(pairs)} pairs")
        examples = [
            TextExample(str(i), text, pairs[i] if pairs is not None else None, None)
            for i, text in enumerate(texts)
        ]
        outputs, _ = self.run(examples)
        if not self.labels:
            return [Classified(float(output["logits"][0]), {}) for output in outputs]
        found = []
        for output in outputs:
            probabilities = _softmax(output["logits"])
            named = dict(zip(self.labels, probabilities.tolist(), strict=True))
            found.append(Classified(self.labels[int(np.argmax(probabilities))], named))
        return found

    def answer(self, question: str, context: str, top_k: int = 1) -> list[Answered]:
        """The likeliest answers to a question, the best first; "" says that there is none.

        Probabilities are over the answers considered, no answer among them.

        Raises:
          ValueError: for another kind of model.
        """
        self._require("span")
        example = QuestionExample("0", "", context, question, ())
        outputs, features = self.run([example])
        (found,) = self.task.predictions(outputs, features, 1)
        answers = [Answered(text_of(example, s), s.begin, s.end, s.score) for s in found.spans]
        if self.task.may_be_unanswerable:
            best = found.spans[0].score if found.spans else 0.0
            threshold = self.validation.get("null_threshold", 0.0)
            answers.append(Answered("", 0, 0, best + found.null_odds - threshold))
        probabilities = _softmax(np.array([a.probability for a in answers]))
        scored = [
            a._replace(probability=float(p)) for a, p in zip(answers, probabilities, strict=True)
        ]
        return sorted(scored, key=lambda a: -a.probability)[:top_k]

    def tag(self, words: str | Sequence[str]) -> list[Tagged]:
        """The tag of each word of a sentence, given as words or as a text cut at spaces.

        Raises:
          ValueError: for another kind of model.
        """
        self._require("tagging")
        words = words.split() if isinstance(words, str) else list(words)
        outputs, features = self.run([TaggedExample("0", tuple(words), None)])
        found = {}
        for output, row in zip(outputs, features.rows, strict=True):
            for slot in np.flatnonzero(row["words"] >= 0):
                log_probs_K = output["log_probs"][slot]
                k, word = int(np.argmax(log_probs_K)), int(row["words"][slot])
                found[word] = Tagged(words[word], self.labels[k], float(np.exp(log_probs_K[k])))
        return [found[i] for i in sorted(found)]

    def choose(self, context: str, question: str, options: Sequence[str]) -> Chosen:
        """The option that best answers a question about a text.

        Raises:
          ValueError: for another kind of model, or fewer than two options.
        """
        self._require("choice")
        if isinstance(options, str) or len(options) < 2:
            raise ValueError(f"options are at least two strings, not {options!r}")
        outputs, _ = self.run([ChoiceExample("0", context, question, tuple(options), None)])
        probabilities = _softmax(outputs[0]["logits"])
        best = int(np.argmax(probabilities))
        return Chosen(options[best], best, probabilities.tolist())

    def run(self, examples: Sequence[Any]) -> tuple[list[dict[str, np.ndarray]], Features]:
        """The task's outputs for each row of some examples, and the rows."""
        features = self.task.features(examples, self.tokenizer)
        outputs: list[Any] = [None] * len(features.rows)
        size = min(_BATCH, len(features.rows)) or 1
        for members, batch in eval_batches(features.rows, size, self.task.config.max_length):
            results = jax.device_get(self._outputs(self.params, batch))
            for position, member in enumerate(members):
                outputs[member] = {name: array[position] for name, array in results.items()}
        return outputs, features

    def _require(self, kind: str) -> None:
        if self.kind != kind:
            raise ValueError(f"this model is for {self.kind}, not for {kind}")


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - np.max(logits))
    return shifted / np.sum(shifted)
