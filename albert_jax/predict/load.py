"""`albert_jax.load(...)`: loads a model in any supported format, ready for inference."""

from pathlib import Path

import jax

from albert_jax.checkpoints.read import read
from albert_jax.data.tokenizers import tokenizer_of
from albert_jax.predict.exported import is_export, read_export
from albert_jax.predict.finetuned import FinetunedModel


def load(path: str | Path, step: int | None = None, average: int = 1) -> FinetunedModel:
    """Loads a model in any supported format.

    Args:
      path: a run directory, a Hugging Face transformers directory, a TensorFlow checkpoint of
        google-research/albert, an export, or "hf:NAME" to fetch NAME from the Hugging Face Hub.
      step: for a run directory, the checkpoint to load; by default the best of a fine-tuned
        run, else the newest.
      average: for a run directory, of how many of the newest checkpoints to take the mean.

    Raises:
      FileNotFoundError: if there is no model, or no checkpoint yet.
      ValueError: if it is damaged or not supported, or `step` has no checkpoint.
    """
    export = None
    if is_export(Path(path)):
        if step is not None or average != 1:
            raise ValueError(
                f"{str(path)!r} is an export, without steps; leave out step and average"
            )
        export = read_export(Path(path))
    weights = export.weights if export else read(path, step, average=average)
    tokenizer = tokenizer_of(weights.vocabulary, path) if weights.vocabulary else None
    if tokenizer is not None and tokenizer.vocab_size > weights.config.vocab_size:
        raise ValueError(
            f"{str(path)!r}: the vocabulary has {tokenizer.vocab_size} tokens, but the model only "
            f"{weights.config.vocab_size}"
        )
    if export:
        return FinetunedModel(weights, weights.params, tokenizer, export)
    params = jax.device_put(weights.params, jax.local_devices()[0])
    return FinetunedModel(weights, params, tokenizer)
