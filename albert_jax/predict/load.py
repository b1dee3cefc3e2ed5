"""`albert_jax.load(...)`: a model from anywhere, ready to be used."""

from pathlib import Path

import jax

from albert_jax.checkpoints.read import read
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.predict.finetuned import FinetunedModel


def load(path: str | Path, step: int | None = None) -> FinetunedModel:
    """Loads a model from anywhere.

    Args:
      path: a run directory, a directory of transformers or of the original's checkpoints, or
        "hf:NAME" to fetch NAME from the Hugging Face hub.
      step: for a run directory, the checkpoint to load; by default the best of a fine-tuned
        run, else the newest.

    Raises:
      FileNotFoundError: where there is no model, or no checkpoint yet.
      ValueError: where it is damaged or not one that we have, or `step` has no checkpoint.
    """
    weights = read(path, step)
    tokenizer = Tokenizer(path, weights.tokenizer) if weights.tokenizer else None
    if tokenizer is not None and tokenizer.vocab_size > weights.config.vocab_size:
        raise ValueError(
            f"{str(path)!r}: its vocabulary has {tokenizer.vocab_size} pieces, its model only "
            f"{weights.config.vocab_size}"
        )
    params = jax.device_put(weights.params, jax.local_devices()[0])
    return FinetunedModel(weights, params, tokenizer)
