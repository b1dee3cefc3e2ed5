"""Inference with a fine-tuned model: classes of texts, answers, tags, choices, translations."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from albert_jax.checkpoints.weights import Weights
from albert_jax.config import TaskConfig
from albert_jax.data.tokenizers import Tokenizer
from albert_jax.predict.embedding import BATCH
from albert_jax.predict.exported import Export
from albert_jax.predict.pretrained import PretrainedModel
from albert_jax.predict.program import compiled, input_axes, is_task
from albert_jax.predict.results import (
    Answered,
    Chosen,
    Classified,
    Tagged,
    answered,
    chosen,
    classified,
    tagged,
)
from albert_jax.predict.texts import strings, warn_of_cut
from albert_jax.predict.translation import Translated, Translator
from albert_jax.tasks.batching import outputs_of
from albert_jax.tasks.classification import Classification
from albert_jax.tasks.embedding import Embedding
from albert_jax.tasks.examples import ChoiceExample, QuestionExample, TaggedExample, TextExample
from albert_jax.tasks.features import Features, length_of
from albert_jax.tasks.finetuning import FinetuningTask
from albert_jax.tasks.multiple_choice import MultipleChoice
from albert_jax.tasks.question_answering import QuestionAnswering
from albert_jax.tasks.registry import make_task
from albert_jax.tasks.token_classification import TokenClassification
from albert_jax.tasks.translation import Translation

# The training targets of rows: not needed here, and missing from some rows of a RACE file.
_TARGETS = ("label", "tags", "start", "end")
# The task assumed for a model that was fine-tuned elsewhere.
_TASKS = {
    "classification": "classification",
    "token_classification": "conll2003",
    "question_answering": "squad/v2.0",
    "multiple_choice": "race",
    "translation": "translation/src-tgt",
    "embedding": "embedding/pairs",
}


_Family = TypeVar("_Family", bound=FinetuningTask)


class FinetunedModel(PretrainedModel):
    """The result of `albert_jax.load`: fills masks, or solves the task it was fine-tuned for.

    Attributes:
      kind: the model's purpose, a key of `model.heads.KINDS`.
      labels: names of its classes; empty for regression, question answering and multiple choice.
      is_export: whether it runs an exported program.
    """

    def __init__(
        self,
        weights: Weights,
        params: Any,
        tokenizer: Tokenizer | None,
        export: Export | None = None,
    ):
        """Wraps a model.

        Args:
          weights: what is known of it.
          params: its parameters on a device.
          tokenizer: if there is one.
          export: whose program to use; by default it is compiled from the parameters.
        """
        encoder, heads = (export.encoder, export.heads) if export else (None, None)
        super().__init__(weights.config, params, tokenizer, encoder, heads)
        self.kind, self.validation = weights.kind, weights.validation
        self.is_export = export is not None
        self.labels: tuple[str, ...] = ()
        self._task: FinetuningTask | None = None
        if self.kind not in _TASKS:
            return
        self.labels = weights.labels if export else _class_names(weights)
        config = weights.task or _settings(weights, self.labels)
        self._task = make_task(config.with_full_search(), self.labels)
        self._compiled = partial(compiled, weights.config, params)
        inputs = tuple(input_axes(self.kind, self.heads)) if is_task(self.kind) else None
        self._program = export.task if export else self._compiled(self._task.outputs, inputs)
        self._translators: dict[tuple[int, float], Translator] = {}
        if isinstance(self._task, Embedding):
            self._embed_as(config.max_length, config.embedding.pooling)

    @property
    def task(self) -> FinetuningTask:
        """The task that the model was fine-tuned for.

        Raises:
          ValueError: if it was not fine-tuned.
        """
        if self._task is None:
            raise ValueError(f"this model is for {self.kind}: it was not fine-tuned for a task")
        return self._task

    @property
    def is_finetuned(self) -> bool:
        """Whether the model was fine-tuned for a task."""
        return self._task is not None

    @property
    def max_length(self) -> int:
        """The longest text [tokens], or pair of texts, that is not cut."""
        return self._embedder.max_length if self._task is None else self._task.config.max_length

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[Classified]:
        """Returns the class, or the score, of each text, or of each text with its pair.

        Texts longer than those the model was fine-tuned on are cut, with a warning.

        Raises:
          ValueError: if the model is of another kind, an argument is not a list of strings or is
            empty, or the numbers of texts and pairs differ.
        """
        self._require(Classification)
        firsts = strings("texts", texts)
        seconds = strings("pairs", pairs) if pairs is not None else [None] * len(firsts)
        if len(seconds) != len(firsts):
            raise ValueError(f"{len(firsts)} texts but {len(seconds)} pairs")
        both = enumerate(zip(firsts, seconds, strict=True))
        outputs, features = self.run([TextExample(str(i), a, b, None) for i, (a, b) in both])
        warn_of_cut(features.notes["texts cut"], len(firsts), self.task.config.max_length)
        return classified(outputs, self.labels)

    def answer(self, question: str, context: str, top_k: int = 1) -> list[Answered]:
        """Returns the most likely answers to a question, best first; "" means no answer.

        Raises:
          ValueError: as `answer_batch`.
        """
        return self.answer_batch([question], [context], top_k)[0]

    def answer_batch(
        self, questions: Sequence[str], contexts: Sequence[str], top_k: int = 1
    ) -> list[list[Answered]]:
        """Returns the answers to each question, from the context at the same place.

        Raises:
          ValueError: if the model is of another kind, a question or a context is not a string or
            is blank, their numbers differ, or `top_k` is less than 1.
        """
        task = self._require(QuestionAnswering)
        if top_k < 1:
            raise ValueError(f"top_k={top_k} must be at least 1")
        for name, texts in (("question", questions), ("context", contexts)):
            for text in texts:
                if not isinstance(text, str) or not text.strip():
                    raise ValueError(f"the {name} must be a string, not blank: {text!r}")
        if len(questions) != len(contexts) or not questions:
            raise ValueError(f"{len(questions)} questions and {len(contexts)} contexts")
        pairs = enumerate(zip(questions, contexts, strict=True))
        examples = [QuestionExample(str(i), "", context, q, ()) for i, (q, context) in pairs]
        outputs, features = self.run(examples)
        return answered(task, outputs, features, examples, self.validation, top_k)

    def tag(self, words: str | Sequence[str]) -> list[Tagged]:
        """Returns the tag of each word of a sentence, given as words or as a text split at spaces.

        Raises:
          ValueError: as `tag_batch`.
        """
        return self.tag_batch([words])[0]

    def tag_batch(self, sentences: Sequence[str | Sequence[str]]) -> list[list[Tagged]]:
        """Returns the tags of each sentence; see `tag`.

        Raises:
          ValueError: if the model is of another kind, there is no word, or a word is not a
            string.
        """
        self._require(TokenClassification)
        split = [s.split() if isinstance(s, str) else s for s in sentences]
        examples = [
            TaggedExample(str(i), tuple(strings("words", words)), None)
            for i, words in enumerate(split)
        ]
        outputs, features = self.run(examples)
        return tagged(outputs, features, examples, self.labels)

    def choose(self, context: str, question: str, options: Sequence[str]) -> Chosen:
        """Returns the option that best answers a question about a text.

        Raises:
          ValueError: if the model is of another kind, an argument is not a string, or there are
            fewer than two options.
        """
        self._require(MultipleChoice)
        strings("context and question", [context, question])
        options = strings("options", options)
        if len(options) < 2:
            raise ValueError(f"options must be a list of at least two strings, not {options!r}")
        examples = [ChoiceExample("0", context, question, tuple(options), None)]
        outputs, features = self.run(examples)
        return chosen(outputs, examples)[0]._replace(cut=any(features.notes.values()))

    def translate(
        self,
        texts: Sequence[str],
        beam: int | None = None,
        n_best: int = 1,
        length_penalty: float | None = None,
    ) -> list[Translated]:
        """Returns the translation of each text; blank texts give "".

        Texts longer than `task.max_length` are cut, with a warning.

        Args:
          texts: sentences.
          beam: hypotheses to keep, 1 for greedy; by default `task.translation.beam`.
          n_best: how many of each text's to return.
          length_penalty: by default `task.translation.length_penalty`.

        Raises:
          ValueError: if the model is of another kind, `texts` is not a list of strings or is
            empty, or a setting cannot be.
        """
        translator, texts = self.translator(beam, length_penalty), strings("texts", texts)
        found, features = translator(texts, self.tokenizer, BATCH, n_best)
        warn_of_cut(sum(features.notes.values()), len(texts), self.max_length)
        return found

    def translator(
        self, beam: int | None = None, length_penalty: float | None = None
    ) -> Translator:
        """Returns the search with these settings, the same one each time; see `translate`.

        Raises:
          ValueError: as `translate`.
        """
        task = self._require(Translation)
        if self.is_export:
            raise ValueError("this export holds the encoder alone; load what it was made from")
        chosen = task.config.translation
        key = (
            chosen.beam if beam is None else beam,
            chosen.length_penalty if length_penalty is None else length_penalty,
        )
        if key not in self._translators:
            self._translators[key] = Translator(task, self._compiled, *key)
        return self._translators[key]

    def run(self, examples: Sequence[Any]) -> tuple[list[dict[str, np.ndarray]], Features]:
        """Returns the task's outputs for each row of the examples, and the rows.

        Raises:
          ValueError: if the model was not fine-tuned.
        """
        features = self.task.features(examples, self.tokenizer)
        rows = [{k: v for k, v in row.items() if k not in _TARGETS} for row in features.rows]
        # A multiple-choice row has several sequences.
        parts = max((row["input_ids"].size // length_of(row) for row in rows), default=1)
        size = self._program.rows(len(rows), max(BATCH // parts, 1))
        longest, width = self.task.config.max_length, self._program.width
        return outputs_of(rows, size, longest, self._program, width), features

    def _require(self, family: type[_Family]) -> _Family:
        if not isinstance(self._task, family):
            raise ValueError(f"this model is for {self.kind}, not for {family.kind}")
        return self._task


def _class_names(weights: Weights) -> tuple[str, ...]:
    """Returns the class names; none if the classifier's only output is a score."""
    if weights.kind not in ("classification", "token_classification"):
        return ()
    count = weights.params["classifier"]["bias"].shape[0]
    if weights.kind == "classification" and count == 1:
        return ()
    labels = weights.labels or tuple(f"LABEL_{i}" for i in range(count))
    if len(labels) != count:
        raise ValueError(f"the model has {count} classes, but {len(labels)} class names: {labels}")
    return tuple(labels)


def _settings(weights: Weights, labels: Sequence[str]) -> TaskConfig:
    """Returns settings for a model without its own: the defaults, reduced to fit the model."""
    is_regression = weights.kind == "classification" and not labels
    config = TaskConfig(name="regression" if is_regression else _TASKS[weights.kind])
    limit = weights.config.max_position_embeddings
    return dataclasses.replace(
        config,
        max_length=min(config.max_length, limit),
        # Most of a row is left to the context, and the next row starts before this one's end.
        max_question=min(config.max_question, limit // 4),
        stride=min(config.stride, limit // 4),
    )
