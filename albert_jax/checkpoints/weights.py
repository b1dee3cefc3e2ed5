"""The in-memory form of a model that every format is read into and written from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.config import ModelConfig, TaskConfig
from albert_jax.data.files import file_sha256
from albert_jax.data.tokenizers import Vocabulary

# Model settings that may differ from those of the weights, because they only affect training.
_FREE = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")


def check_same_model(theirs: ModelConfig, ours: ModelConfig, whose: str) -> None:
    """Checks that weights of a model `theirs` fit a model `ours`.

    Raises:
      ValueError: if they do not; the message names every setting that differs.
    """
    differing = [
        f"model.{name} is {getattr(theirs, name)!r}, but this run has {value!r}"
        for name, value in vars(ours).items()
        if name not in _FREE and getattr(theirs, name) != value
    ]
    if differing:
        raise ValueError(f"{whose} is a different model: {'; '.join(differing)}")


# Optimizers whose state is two moments of each parameter, which formats have a place for.
HAVE_MOMENTS = ("lamb", "adamw")


class Moments(NamedTuple):
    """LAMB's first and second moments, nested dicts like the parameters."""

    mu: Any
    nu: Any


class Weights(NamedTuple):
    """A model between two formats.

    Attributes:
      config: the model's sizes.
      params: nested dict of float32 NumPy arrays.
      kind: a key of `KINDS`.
      vocabulary: the tokenizer's; None if there is none.
      moments: the optimizer's moments, if they were read.
      step: optimizer steps done, 0 if unknown.
      labels: names of the classifier's classes, if they have names.
      task: the settings that it was fine-tuned with, if known.
      validation: held-out metrics, if known.
      files: all files that this was read from.
    """

    config: ModelConfig
    params: dict[str, Any]
    kind: str
    vocabulary: Vocabulary | None = None
    moments: Moments | None = None
    step: int = 0
    labels: tuple[str, ...] = ()
    task: TaskConfig | None = None
    validation: Mapping[str, float] = {}
    files: tuple[Path, ...] = ()


def provenance(source: str, weights: Weights) -> dict[str, Any]:
    """Returns a run's record of the weights that it started from.

    Returns:
      `source`, as given, and `files`: the sha256 of each file read, by its path relative to the
      folder that holds them all.
    """
    top = os.path.commonpath([file.parent for file in weights.files])
    digests = {os.path.relpath(path, top): file_sha256(path) for path in sorted(weights.files)}
    return {"source": source, "files": digests}
