"""Translations of texts by a beam search."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from albert_jax.data.tokenizers import Tokenizer
from albert_jax.predict.program import TEXT, Program
from albert_jax.tasks.batching import outputs_of
from albert_jax.tasks.examples import PairExample
from albert_jax.tasks.features import Features
from albert_jax.tasks.search import NONE_FOUND
from albert_jax.tasks.translation import Translation, is_blank, text_of

Compile = Callable[[Callable[[Any, Any], dict[str, Any]], tuple[str, ...]], Program]


class Hypothesis(NamedTuple):
    """A translation, and its log-probability (nats) over the length penalty."""

    text: str
    score: float


class Translated(NamedTuple):
    """The best translation of a text, its score, and all that were asked for, best first."""

    text: str
    score: float
    n_best: list[Hypothesis]


class Translator:
    """A search with given settings.

    Attributes:
      program: the search of a batch, compiled once for each shape.
    """

    def __init__(self, task: Translation, compiled: Compile, beam: int, length_penalty: float):
        """Takes the task's other settings as they are.

        Raises:
          ValueError: if a setting cannot be.
        """
        config = task.config
        if beam < 1:
            raise ValueError(f"beam={beam} must be at least 1")
        if not 0 <= length_penalty < math.inf:
            raise ValueError(
                f"length_penalty={length_penalty} must be a finite number, at least 0"
            )
        self._beam = beam
        chosen = dataclasses.replace(config.translation, beam=beam, length_penalty=length_penalty)
        self._task = Translation(task.spec, dataclasses.replace(config, translation=chosen))
        self.program = compiled(
            lambda model, batch: self._task.search(model, batch, beam)._asdict(), TEXT
        )

    def __call__(
        self, texts: Sequence[str], tokenizer: Tokenizer, batch_size: int, n_best: int = 1
    ) -> tuple[list[Translated], Features]:
        """Returns the translations of texts, and their rows.

        Raises:
          ValueError: if more are asked for than the beam holds.
        """
        if not 1 <= n_best <= self._beam:
            raise ValueError(f"n_best={n_best} must be from 1 to beam={self._beam}")
        examples = [PairExample(str(i), text, None) for i, text in enumerate(texts)]
        features = self._task.features(examples, tokenizer)
        size = self.program.rows(len(texts), batch_size)
        outputs = outputs_of(features.rows, size, self._task.config.max_length, self.program)
        found = []
        for row, output in zip(features.rows, outputs, strict=True):
            best = [
                Hypothesis("" if is_blank(row) else text_of(ids, tokenizer), float(score))
                for ids, score in zip(output["ids"], output["scores"], strict=True)
                if score > NONE_FOUND
            ][:n_best]
            if not best:
                raise ValueError(
                    "the model gives no finite probabilities: its weights are damaged, or the run "
                    "diverged; load an earlier step"
                )
            found.append(Translated(*best[0], best))
        return found, features
