"""Reads a model from wherever it is: told by what the directory holds."""

from pathlib import Path

from albert_jax.checkpoints.formats.hub import PREFIX, fetch
from albert_jax.checkpoints.formats.huggingface import is_hf, read_hf
from albert_jax.checkpoints.formats.run import read_run_weights
from albert_jax.checkpoints.formats.tensorflow import is_tf, read_tf
from albert_jax.checkpoints.weights import Weights


def read(path: str | Path, step: int | None = None, with_moments: bool = False) -> Weights:
    """Reads a run directory, one of transformers, the original's checkpoints, or "hf:NAME".

    Args:
      path: where the model is.
      step: of a run directory, the checkpoint to read; by default the newest.
      with_moments: whether to read the optimizer's moments, where there are any.

    Raises:
      FileNotFoundError: where there is no model.
      ValueError: where it cannot be read; `step` is for run directories only.
    """
    if isinstance(path, str) and path.startswith(PREFIX):
        path = fetch(path)
    path = Path(path)
    if not is_hf(path) and not is_tf(path):
        return read_run_weights(path, step, with_moments)
    if step is not None:
        raise ValueError(f"{str(path)!r} is no run directory, so it has no step {step} to choose")
    return read_hf(path) if is_hf(path) else read_tf(path, with_moments)
