"""Reads a model in any supported format, recognized by the directory's contents."""

from pathlib import Path

from albert_jax.checkpoints.formats.hub import PREFIX, fetch
from albert_jax.checkpoints.formats.huggingface import is_hf, read_hf
from albert_jax.checkpoints.formats.run import read_run_weights
from albert_jax.checkpoints.formats.tensorflow import is_tf, read_tf
from albert_jax.checkpoints.weights import Weights

# Help for the option of commands.
AVERAGE = "for a run, take the mean of this many of its newest checkpoints (default: 1)"


def read(
    path: str | Path, step: int | None = None, with_moments: bool = False, average: int = 1
) -> Weights:
    """Reads a run, a transformers directory, a google-research/albert checkpoint or "hf:NAME".

    Args:
      path: the model's location.
      step: for a run directory, the checkpoint to read; by default the best of a fine-tuned run,
        else the newest.
      with_moments: whether to read the optimizer's moments, if there are any.
      average: for a run directory, of how many of the newest checkpoints to take the mean.

    Raises:
      FileNotFoundError: if there is no model.
      ValueError: if it cannot be read, or `step` or `average` is given for anything but a run
        directory, or both.
    """
    if average < 1 or (average > 1 and step is not None):
        raise ValueError(f"average={average} must be at least 1, and 1 with a step")
    if isinstance(path, str) and path.startswith(PREFIX):
        path = fetch(path)
    path = Path(path).expanduser()
    if not is_hf(path) and not is_tf(path):
        if not path.exists():
            raise FileNotFoundError(
                f"there is no model at {str(path)!r}; is the path correct? A model of the Hugging "
                "Face Hub is hf:NAME"
            )
        return read_run_weights(path, step, with_moments, average)
    if average > 1:
        raise ValueError(f"{str(path)!r} is not a run directory: there is nothing to average")
    if step is not None:
        raise ValueError(f"{str(path)!r} is not a run directory, so it has no step {step}")
    return read_hf(path) if is_hf(path) else read_tf(path, with_moments)
