"""LAMB as ALBERT has it, AdamW, learning rate schedules: small optax parts, composed."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from albert_jax.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Linear warmup from 0, then the configured course; update t uses the rate at t - 1.

    Raises:
      ValueError: where the warmup leaves no room for the decay of `wsd`.
    """
    peak, warmup, rest = (
        config.learning_rate,
        config.warmup_steps,
        num_steps - config.warmup_steps,
    )
    if config.schedule == "linear":
        course = optax.linear_schedule(peak, 0.0, rest)
    elif config.schedule == "cosine":
        course = optax.cosine_decay_schedule(peak, rest)
    else:
        decay = max(1, round(config.decay_fraction * num_steps))
        if decay > rest:
            raise ValueError(
                f"optimizer.warmup_steps={warmup} and a decay of {decay} steps are more than "
                f"train.num_steps={num_steps}; lower optimizer.decay_fraction"
            )
        stable = optax.constant_schedule(peak)
        fall = optax.linear_schedule(peak, 0.0, decay)
        course = optax.join_schedules([stable, fall], [rest - decay])
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), course], [warmup])


def make_optimizer(
    config: OptimizerConfig, num_steps: int, is_stacked: Callable[[str], bool]
) -> optax.GradientTransformation:
    """The whole update: clipping, moments, decay, trust ratio, learning rate.

    Args:
      config: which optimizer, and its numbers.
      num_steps: updates in the run.
      is_stacked: whether the parameter at a path ("a/b/c") holds one variable per
        layer along its first axis; each then gets a trust ratio of its own.
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    parts = [
        clip,
        scale_by_moments(config.b1, config.b2, config.eps, config.bias_correction),
        optax.add_decayed_weights(config.weight_decay, mask=_kernels),
    ]
    if config.name == "lamb":
        parts.append(scale_by_trust_ratio(is_stacked))
    schedule = make_schedule(config, num_steps)
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


def scale_by_moments(
    b1: float, b2: float, eps: float, bias_correction: bool
) -> optax.GradientTransformation:
    """Adam's `m / (√v + eps)`, with or without the division of m and v by 1 - b^t.

    Source: google-research/albert lamb_optimizer.py, which does not correct the bias.
    """

    def init(params: Any) -> Any:
        return optax.scale_by_adam().init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        count = state.count + 1
        mu = optax.tree.update_moment(updates, state.mu, b1, 1)
        nu = optax.tree.update_moment(updates, state.nu, b2, 2)
        m_hat, v_hat = mu, nu
        if bias_correction:
            m_hat, v_hat = _unbiased(mu, b1, count), _unbiased(nu, b2, count)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), m_hat, v_hat)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _unbiased(moment: Any, decay: float, count: jax.Array) -> Any:
    # 1 - decay^count, taken in float32 as it stands (and as optax takes it), is up to 2e-5 off.
    weight = -jnp.expm1(count * math.log(decay)) if decay else 1.0
    return jax.tree.map(lambda m: m / weight, moment)


def scale_by_trust_ratio(is_stacked: Callable[[str], bool]) -> optax.GradientTransformation:
    """Multiplies the update of each variable w by ‖w‖ / ‖update‖; by 1 where one is 0.

    Norms and biases are left alone.

    Source: arXiv:1904.00962, Algorithm 2; the exclusions from google-research/albert
    optimization.py.
    """

    def scale(key_path: tuple, update: jax.Array, param: jax.Array) -> jax.Array:
        path = _path(key_path)
        if not _is_kernel(path):
            return update
        axes = tuple(range(1 if is_stacked(path) else 0, param.ndim))

        def norm(x: jax.Array) -> jax.Array:
            return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))

        param_norm, update_norm = norm(param), norm(update)
        usable = (param_norm > 0) & (update_norm > 0)
        return update * jnp.where(usable, param_norm / jnp.where(usable, update_norm, 1), 1)

    def init(params: Any) -> Any:
        del params
        return optax.EmptyState()

    def update_fn(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree_util.tree_map_with_path(scale, updates, params), state

    return optax.GradientTransformation(init, update_fn)


def _kernels(params: Any) -> Any:
    """True for what is decayed: all but norms and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_kernel(_path(path)), params)


def _is_kernel(path: str) -> bool:
    return path.rpartition("/")[2] not in ("bias", "scale")


def _path(key_path: tuple) -> str:
    return jax.tree_util.keystr(key_path, simple=True, separator="/")
