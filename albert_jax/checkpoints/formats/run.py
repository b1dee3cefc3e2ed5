"""Run directories, which `albert_jax.train` writes and resumes from."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from albert_jax.checkpoints.manager import Checkpoints, abstract_on_device
from albert_jax.checkpoints.run_dir import read_run
from albert_jax.checkpoints.weights import HAVE_MOMENTS, Moments, Weights
from albert_jax.config import ModelConfig
from albert_jax.data.tokenizers import read_vocabulary, vocabulary_in
from albert_jax.model.albert import abstract_model
from albert_jax.model.sharding import path_of


def read_run_weights(
    directory: Path, step: int | None = None, with_moments: bool = False, average: int = 1
) -> Weights:
    """Reads a run's newest intact checkpoint, its best if it is fine-tuned, or that of `step`.

    Instead it may read the mean of the newest ones.

    Args:
      directory: the run directory.
      step: a step that has a checkpoint.
      with_moments: whether to read the optimizer's moments too; at step 0 there are none, and
        no format but Orbax's own has a place for those of Muon and its like.
      average: of how many of the newest checkpoints to take the mean, without moments.

    Raises:
      FileNotFoundError: if there is no run, or no checkpoint in it.
      ValueError: if there is no checkpoint of that step, or it is damaged or of another model.
    """
    run = read_run(directory)
    folder = directory / "checkpoints"
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = checkpoints.find(step)
        shapes = checkpoints.param_shapes(step)
        _check_shapes(shapes, run.config.model, folder)
        abstract = abstract_on_device(shapes, jax.local_devices()[0])
        if average > 1:
            step, params = checkpoints.mean_params(average, abstract)
        else:
            params = checkpoints.restore_params(step, abstract)
        params = jax.tree.map(np.asarray, params)
        with_moments &= average == 1 and step > 0 and run.config.optimizer.name in HAVE_MOMENTS
        moments = Moments(*checkpoints.read_moments(step)) if with_moments else None
        validation = checkpoints.record(step).get("validation", {})
    file = vocabulary_in(directory)
    files = [p for p in sorted((folder / str(step)).rglob("*")) if p.is_file()]
    files += [directory / "config.json", *([file] if file else [])]
    task = run.config.task if run.config.task.name != "pretrain" else None
    return Weights(
        config=run.config.model,
        params=params,
        kind=run.kind,
        vocabulary=read_vocabulary(file) if file else None,
        moments=moments,
        step=step,
        labels=run.labels,
        task=task,
        validation=validation,
        files=tuple(files),
    )


def _check_shapes(shapes: Any, config: ModelConfig, folder: Path) -> None:
    """Checks that a checkpoint's parameters are those of the run's settings."""
    wanted = nnx.to_pure_dict(nnx.state(abstract_model(config, shapes), nnx.Param))
    pairs = zip(_flat(wanted), _flat(shapes), strict=False)
    differing = next((pair for pair in pairs if pair[0] != pair[1]), None)
    if differing or len(_flat(wanted)) != len(_flat(shapes)):
        raise ValueError(
            f"the checkpoint in {str(folder)!r} does not match the model in config.json: "
            f"{differing or 'the number of parameters differs'}"
        )


def _flat(tree: Any) -> list[tuple[str, tuple[int, ...]]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return sorted((path_of(path), leaf.shape) for path, leaf in leaves)
