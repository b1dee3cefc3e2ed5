"""Small models of every kind, whose outputs differ from text to text."""

from typing import Any

import jax
from support.models import tiny_model
from support.params import random_params
from support.texts import VOCAB_SIZE

from albert_jax.checkpoints.weights import Weights
from albert_jax.config import ModelConfig
from albert_jax.model.heads import KINDS

TAGS = ("O", "B-PER", "I-PER")
LABELS = {"classification": ("bad", "good", "neither"), "token_classification": TAGS}
CONFIG = tiny_model(vocab_size=VOCAB_SIZE, num_hidden_layers=2)


def make_weights(
    kind: str, outputs: int | None = None, config: ModelConfig = CONFIG, **fields: Any
) -> Weights:
    """Weights under which texts differ; `outputs` of the classifier if not one a label."""
    labels = fields.pop("labels", LABELS.get(kind, ()))
    params = random_params(config, KINDS[kind], outputs or len(labels) or 1)
    params = jax.tree_util.tree_map_with_path(
        lambda path, p: 1 + p * 0.1 if path[-1].key == "scale" else p * 0.2, params
    )
    return Weights(config, params, kind, labels=labels, **fields)
