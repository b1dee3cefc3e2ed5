"""Pure functions for one optimizer update and one evaluation batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from albert_jax.checkpoints.state import StateSpec, TrainState
from albert_jax.model.sharding import BATCH, REPLICATED
from albert_jax.tasks.base import Batch, Mean, Metrics, Task


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    task: Task,
    graphdef: Any,
    tx: optax.GradientTransformation,
    accum_steps: int,
) -> tuple[TrainState, Metrics]:
    """Updates the state with the gradient of the batch's mean loss, if both are finite.

    If either is not, only the step counter advances, and the metric `skipped` has a total of 1.

    Every loss term is a mean over the whole batch, and dropout depends only on (key, step, row).
    Gradient accumulation and the number of devices therefore change nothing but rounding.
    """

    def loss_fn(
        params: Any, loss_counts: dict[str, jax.Array], batch: Batch, dropout_keys_B: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        metrics = task.metrics(nnx.merge(graphdef, params), batch, dropout_keys_B)
        terms = [
            weight * metrics[name].total / jnp.maximum(loss_counts[name], 1)
            for name, weight in task.loss_terms.items()
        ]
        return sum(terms, start=jnp.zeros(())), metrics

    sums = partial(_accumulate, jax.value_and_grad(loss_fn, has_aux=True), accum_steps)
    loss_counts = task.loss_counts(batch)
    num_rows = len(next(iter(batch.values())))
    dropout_keys_B = jax.random.split(jax.random.fold_in(key, state.step), num_rows)
    (loss, metrics), grads = _over_rows(sums)(state.params, loss_counts, batch, dropout_keys_B)
    with jax.named_scope("optimizer"):
        norm = optax.tree.norm(grads)
        is_finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        after = optax.apply_updates(state.params, updates), opt_state
        params, opt_state = jax.tree.map(
            lambda new, old: jnp.where(is_finite, new, old),
            after,
            (state.params, state.opt_state),
        )
    metrics |= {
        "loss": Mean(loss, 1.0),
        "grad_norm": Mean(norm, 1.0),
        "skipped": Mean(1.0 - is_finite, 0.0),  # a count, not a mean
    }
    return TrainState(state.step + 1, params, opt_state), metrics


def _over_rows(sums: Callable[..., Any]) -> Callable[..., Any]:
    """Runs `sums(params, loss_counts, batch, keys)` on each device's rows; all-reduces once.

    ALBERT's layers share their weights, so each layer contributes to the same gradient. If the
    program is left to XLA's partitioner, it all-reduces that gradient in every layer and for
    every accumulation part, and gathers `fsdp`-sharded weights just as often. Here each device
    first sums its own rows' gradient, so both happen once a step: the weights are whole during a
    step, and weights and moments are sharded between steps. With `tensor`, weights are sharded
    within the step too, which is left to XLA: its partitioner fails on programs that are
    partitioned by hand along only some axes.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or mesh.shape["tensor"] > 1:
        return sums

    def local(*arguments: Any) -> Any:
        return jax.lax.psum(sums(*arguments), ("data", "fsdp"))

    specs = REPLICATED, REPLICATED, BATCH, BATCH
    return jax.shard_map(local, in_specs=specs, out_specs=REPLICATED, check_vma=False)


def _accumulate(
    value_and_grad: Callable,
    accum_steps: int,
    params: Any,
    loss_counts: Any,
    batch: Batch,
    dropout_keys_B: Any,
) -> Any:
    """Returns `value_and_grad` summed over `accum_steps` parts of the batch."""
    if accum_steps == 1:
        return value_and_grad(params, loss_counts, batch, dropout_keys_B)

    def split(x: jax.Array) -> jax.Array:
        # Takes every accum_steps-th row, so each part spans all devices just as the batch does.
        return jnp.swapaxes(x.reshape(-1, accum_steps, *x.shape[1:]), 0, 1)

    def add(sums: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, value_and_grad(params, loss_counts, *part)), None

    parts = jax.tree.map(split, (batch, dropout_keys_B))
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(value_and_grad, params, loss_counts, *first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, parts)[0]


def eval_step(params: Any, batch: Batch, *, task: Task, graphdef: Any) -> Metrics:
    """Returns losses and metrics of a batch, without dropout."""
    return task.metrics(nnx.merge(graphdef, params), batch, None)


def compile_outputs(
    outputs: Callable[[Any, Batch], Any], spec: StateSpec, mesh: Mesh
) -> Callable[[Any, Batch], Any]:
    """Returns `outputs(model, batch)` jitted over (params, batch), with replicated results."""
    params = jax.tree.map(lambda leaf: leaf.sharding, spec.abstract_state.params)
    return jax.jit(
        lambda params, batch: outputs(nnx.merge(spec.graphdef, params), batch),
        in_shardings=(params, NamedSharding(mesh, BATCH)),
        out_shardings=NamedSharding(mesh, REPLICATED),
    )


def compile_steps(task: Task, spec: StateSpec, mesh: Mesh, accum_steps: int) -> tuple[Any, Any]:
    """Returns jitted `train_step(state, batch, key)` and `eval_step(params, batch)` for the mesh.

    The state passed to `train_step` is donated.
    """
    state = jax.tree.map(lambda leaf: leaf.sharding, spec.abstract_state)
    batch, replicated = NamedSharding(mesh, BATCH), NamedSharding(mesh, REPLICATED)
    train = jax.jit(
        partial(
            train_step,
            task=task,
            graphdef=spec.graphdef,
            tx=spec.tx,
            accum_steps=accum_steps,
        ),
        in_shardings=(state, batch, replicated),
        out_shardings=(state, replicated),
        donate_argnums=0,
    )
    evaluate = jax.jit(
        partial(eval_step, task=task, graphdef=spec.graphdef),
        in_shardings=(state.params, batch),
        out_shardings=replicated,
    )
    return train, evaluate
