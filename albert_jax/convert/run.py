"""Run directories: what `albert_jax.train` writes and goes on from."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from albert_jax.checkpoint import Checkpoints, abstract_on_device
from albert_jax.config import Config, ModelConfig
from albert_jax.convert.mapping import abstract_model
from albert_jax.convert.weights import Moments, Weights, check_same_model, provenance
from albert_jax.model import is_stacked
from albert_jax.optimizer import make_optimizer
from albert_jax.run_dir import open_run, read_run
from albert_jax.sharding import path_of
from albert_jax.train_state import TrainState


def read_run_weights(
    directory: Path, step: int | None = None, with_moments: bool = False
) -> Weights:
    """Reads a run's newest whole checkpoint, its best if it is fine-tuned, or that of `step`.

    Args:
      directory: the run directory.
      step: a step that has a checkpoint.
      with_moments: whether to read the optimizer's moments too; at step 0 there are none.

    Raises:
      FileNotFoundError: where there is no run, or no checkpoint in it.
      ValueError: where there is no checkpoint of that step, it is damaged, or of another model.
    """
    run = read_run(directory)
    folder = directory / "checkpoints"
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = checkpoints.find(step)
        shapes = checkpoints.param_shapes(step)
        _check_shapes(shapes, run.config.model, folder)
        abstract = abstract_on_device(shapes, jax.local_devices()[0])
        if with_moments and step:
            state, moments = _restore_state(checkpoints, step, abstract, run.config)
        else:
            state, moments = checkpoints.restore_params(step, abstract), None
        validation = checkpoints.record(step).get("validation", {})
    params = jax.tree.map(np.asarray, state)
    file = directory / "tokenizer.model"
    tokenizer = file.read_bytes() if file.is_file() else None
    files = [p for p in sorted((folder / str(step)).rglob("*")) if p.is_file()]
    files += [directory / "config.json", *([file] if tokenizer else [])]
    task = run.config.task if run.config.task.name != "pretrain" else None
    return Weights(
        run.config.model, params, run.kind, tokenizer, moments, step, run.labels, task, validation,
        tuple(files),
    )  # fmt: skip


def write_run(
    weights: Weights, directory: Path, config: Config, source: str | None = None
) -> None:
    """Makes a run directory with one checkpoint, which `train` with `config` goes on from.

    With the optimizer's moments the run goes on from `weights.step`; without them it
    begins, at step 0, with these parameters. `source` is the name of what was read, for the
    run's record.

    Raises:
      ValueError: where `config` is of another model, or its run is over.
    """
    check_same_model(weights.config, config.model, "what is read")
    step = weights.step if weights.moments else 0
    if step >= config.train.num_steps:
        raise ValueError(
            f"config.train.num_steps={config.train.num_steps}, but {step} steps are done; raise it"
        )
    params = jax.tree.map(jnp.asarray, weights.params)
    opt_state = _optimizer(config).init(params)
    if weights.moments is not None:
        mu, nu = (jax.tree.map(jnp.asarray, tree) for tree in weights.moments)
        opt_state = optax.tree.set(opt_state, mu=mu, nu=nu, count=jnp.asarray(step, jnp.int32))
    origin = provenance(source, weights) if source else None
    open_run(directory, config, None, weights.tokenizer, weights.kind, weights.labels, origin)
    with Checkpoints(directory / "checkpoints") as checkpoints:
        state = TrainState(jnp.asarray(step, jnp.int32), params, opt_state)
        checkpoints.save(step, state, {})


def _optimizer(config: Config) -> optax.GradientTransformation:
    share = config.model.share
    return make_optimizer(
        config.optimizer, config.train.num_steps, lambda path: is_stacked(path, share)
    )


def _restore_state(
    checkpoints: Checkpoints, step: int, abstract: Any, config: Config
) -> tuple[Any, Moments]:
    opt_state = jax.eval_shape(_optimizer(config).init, abstract)
    device = jax.local_devices()[0]
    step_shape: Any = jax.ShapeDtypeStruct((), jnp.int32)
    whole = abstract_on_device(TrainState(step_shape, abstract, opt_state), device)
    state, _ = checkpoints.restore(step, whole)
    moments = (optax.tree.get(state.opt_state, name) for name in ("mu", "nu"))
    return state.params, Moments(*(jax.tree.map(np.asarray, tree) for tree in moments))


def _check_shapes(shapes: Any, config: ModelConfig, folder: Path) -> None:
    """Checks that a checkpoint's parameters are those of the run's settings."""
    wanted = nnx.to_pure_dict(nnx.state(abstract_model(config, shapes), nnx.Param))
    pairs = zip(_flat(wanted), _flat(shapes), strict=False)
    differing = next((pair for pair in pairs if pair[0] != pair[1]), None)
    if differing or len(_flat(wanted)) != len(_flat(shapes)):
        raise ValueError(
            f"the checkpoint in {str(folder)!r} is not of the model in config.json: "
            f"{differing or 'the number of parameters differs'}"
        )


def _flat(tree: Any) -> list[tuple[str, tuple[int, ...]]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return sorted((path_of(path), leaf.shape) for path, leaf in leaves)
