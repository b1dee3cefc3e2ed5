"""Optimizers (ALBERT's LAMB, AdamW, Muon, any of optax's) and learning rate schedules."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from albert_jax.config import Config, OptimizerConfig
from albert_jax.config.choices import nearest
from albert_jax.model import is_stacked
from albert_jax.model.sharding import path_of


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Returns a linear warmup from 0 followed by the configured schedule.

    Update t (from 1) uses the rate at t - 1.

    Raises:
      ValueError: if the warmup leaves no room for the decay of `wsd`.
    """
    peak, warmup, rest = (
        config.learning_rate,
        config.warmup_steps,
        num_steps - config.warmup_steps,
    )
    if config.schedule == "inverse_sqrt":
        course = _inverse_sqrt(peak, max(1, warmup))
    elif config.schedule == "linear":
        course = optax.linear_schedule(peak, 0.0, rest)
    elif config.schedule == "cosine":
        course = optax.cosine_decay_schedule(peak, rest)
    else:
        decay = max(1, round(config.decay_fraction * num_steps))
        if decay > rest:
            raise ValueError(
                f"optimizer.warmup_steps={warmup} plus a decay of {decay} steps exceeds "
                f"train.num_steps={num_steps}; lower optimizer.decay_fraction"
            )
        stable = optax.constant_schedule(peak)
        fall = optax.linear_schedule(peak, 0.0, decay)
        course = optax.join_schedules([stable, fall], [rest - decay])
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), course], [warmup])


def _inverse_sqrt(peak: float, warmup: int) -> optax.Schedule:
    """Returns peak · √(warmup / t) at step t = warmup + the steps since.

    Source: arXiv:1706.03762, section 5.3.
    """
    # Before the warmup's end, where another schedule is taken, `count` is negative.
    return lambda count: peak * jnp.sqrt(warmup / (warmup + jnp.maximum(count, 0)))


def optimizer_of(config: Config) -> optax.GradientTransformation:
    """Returns the optimizer of a run.

    Raises:
      ValueError: if there is no such optimizer, or it does not accept the settings.
    """
    share = config.model.share
    return make_optimizer(
        config.optimizer, config.train.num_steps, lambda path: is_stacked(path, share)
    )


def make_optimizer(
    config: OptimizerConfig, num_steps: int, is_stacked: Callable[[str], bool]
) -> optax.GradientTransformation:
    """Returns the complete update: clipping, then the optimizer, at the scheduled rate.

    Args:
      config: the optimizer's name and hyperparameters.
      num_steps: updates in the run.
      is_stacked: whether the parameter at a path ("a/b/c") holds one variable per
        layer along its first axis; each is then treated as a separate variable.

    Raises:
      ValueError: if there is no such optimizer, or it does not accept the settings.
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    schedule = make_schedule(config, num_steps)
    if config.name in OPTIMIZERS:
        return optax.chain(clip, *OPTIMIZERS[config.name](config, schedule, is_stacked))
    return optax.chain(clip, _from_optax(config, schedule))


def _lamb(config: OptimizerConfig, schedule: optax.Schedule, is_stacked: Callable) -> list[Any]:
    trust_ratio, rate = scale_by_trust_ratio(is_stacked), optax.scale_by_learning_rate(schedule)
    return [*_adam(config), trust_ratio, rate]


def _adamw(config: OptimizerConfig, schedule: optax.Schedule, is_stacked: Callable) -> list[Any]:
    del is_stacked  # AdamW is elementwise, so stacking does not matter
    return [*_adam(config), optax.scale_by_learning_rate(schedule)]


def _adam(config: OptimizerConfig) -> list[Any]:
    if config.options:
        raise ValueError(
            f"optimizer.options: {config.name} takes none; use optimizer.b1, b2, eps and "
            "bias_correction instead"
        )
    return [
        scale_by_moments(config.b1, config.b2, config.eps, config.bias_correction),
        optax.add_decayed_weights(config.weight_decay, mask=_kernels),
    ]


def _muon(config: OptimizerConfig, schedule: optax.Schedule, is_stacked: Callable) -> list[Any]:
    """Returns Muon for the layers' matrices, Adam for embeddings, heads, norms and biases.

    Matrix updates are scaled to the magnitude of Adam's, so that one learning rate suits both.
    Only the matrices decay. Source: arXiv:2502.16982, section 2.2.
    """

    def dimensions(params: Any) -> Any:
        def of(key_path: tuple, leaf: jax.Array) -> Any:
            path = path_of(key_path)
            if not (path.startswith(("encoder/", "decoder/group")) and _is_kernel(path)):
                return None
            first = int(is_stacked(path))
            return optax.contrib.MuonDimensionNumbers((first,), (first + 1,))

        return jax.tree_util.tree_map_with_path(of, params)

    given = {
        "weight_decay": config.weight_decay,
        "muon_weight_dimension_numbers": dimensions,
        "consistent_rms": 0.2,
        "adam_b1": config.b1,
        "adam_b2": config.b2,
        "eps": config.eps,
        **_options(config, optax.contrib.muon),
    }
    return [_checked(config, lambda: optax.contrib.muon(schedule, **given))]


# name -> the transformations after clipping. Add your own optimizer here; names that are not
# listed are looked up in optax.
OPTIMIZERS: dict[str, Callable[[OptimizerConfig, optax.Schedule, Callable], list[Any]]] = {
    "lamb": _lamb,
    "adamw": _adamw,
    "muon": _muon,
}


def _from_optax(config: OptimizerConfig, schedule: optax.Schedule) -> Any:
    """Returns the optax optimizer of that name, with `optimizer.options` as its arguments."""
    names = [name for name in dir(optax) if _is_optimizer(name)]
    if config.name not in names:
        known = dict.fromkeys([*OPTIMIZERS, *names])
        raise ValueError(
            f"optimizer.name={config.name!r} is not an optimizer{nearest(config.name, known)}"
        )
    _refuse_adam_settings(config)
    function = getattr(optax, config.name)
    taken, given = inspect.signature(function).parameters, _options(config, function)
    # Not `weight_decay_rate`, adafactor's: that one does not scale with the learning rate.
    if "weight_decay" in taken:
        given.setdefault("weight_decay", config.weight_decay)
        if "mask" in taken:
            given["mask"] = _kernels
    elif config.weight_decay:
        raise ValueError(
            f"optimizer.weight_decay={config.weight_decay}: optax.{config.name} has no weight "
            "decay; set it to 0"
        )
    return _checked(config, lambda: function(learning_rate=schedule, **given))


def _refuse_adam_settings(config: OptimizerConfig) -> None:
    """Raises ValueError if settings of lamb and adamw are changed for another optimizer."""
    default = OptimizerConfig()
    changed = [
        name
        for name in ("b1", "b2", "eps", "bias_correction")
        if getattr(config, name) != getattr(default, name)
    ]
    if changed:
        back = (f"--config.optimizer.{name}={getattr(default, name)}" for name in changed)
        raise ValueError(
            f"optimizer.{', '.join(changed)} do not apply to {config.name}: add {' '.join(back)}, "
            "and set its own arguments as --config.optimizer.options.NAME=VALUE"
        )


def _options(config: OptimizerConfig, function: Callable) -> dict[str, Any]:
    """Returns `optimizer.options`, whose names must be arguments of `function`."""
    taken = [name for name in inspect.signature(function).parameters if name != "learning_rate"]
    for name in config.options:
        if name not in taken:
            raise ValueError(f"unknown key optimizer.options.{name}{nearest(name, taken)}")
    return dict(config.options)


def _checked(
    config: OptimizerConfig, make: Callable[[], optax.GradientTransformation]
) -> optax.GradientTransformation:
    """Returns the optimizer after an abstract update, which shows whether its arguments work.

    Raises:
      ValueError: if it cannot be used.
    """
    params = {"encoder": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}}
    try:
        tx = make()
        jax.eval_shape(lambda: tx.update(params, tx.init(params), params))
    except Exception as error:  # optax does not check arguments; anything may be raised
        raise ValueError(
            f"optimizer.name={config.name!r} does not work with optimizer.options="
            f"{dict(config.options)}: {type(error).__name__}: {error}; correct them, or choose "
            "another optimizer"
        ) from error
    return tx


def _is_optimizer(name: str) -> bool:
    """Whether optax has an optimizer of that name."""
    function = getattr(optax, name)
    is_public = not name.startswith(("_", "scale_by_"))
    return (
        is_public
        and inspect.isfunction(function)
        and "learning_rate" in inspect.signature(function).parameters
    )


def scale_by_moments(
    b1: float, b2: float, eps: float, bias_correction: bool
) -> optax.GradientTransformation:
    """Returns Adam's `m / (√v + eps)`, with or without dividing m and v by 1 - b^t.

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
    # Computed directly in float32, as optax does, 1 - decay^count is off by up to 2e-5.
    weight = -jnp.expm1(count * math.log(decay)) if decay else 1.0
    return jax.tree.map(lambda m: m / weight, moment)


def scale_by_trust_ratio(is_stacked: Callable[[str], bool]) -> optax.GradientTransformation:
    """Returns LAMB's scaling of each variable w's update by ‖w‖ / ‖update‖; by 1 if either is 0.

    Norms and biases are not scaled.

    Source: arXiv:1904.00962, Algorithm 2; the exclusions from google-research/albert
    optimization.py.
    """

    def scale(key_path: tuple, update: jax.Array, param: jax.Array) -> jax.Array:
        path = path_of(key_path)
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
    """Returns a tree that is True for decayed parameters: all but norms and biases."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_kernel(path_of(path)), params)


def _is_kernel(path: str) -> bool:
    return path.rpartition("/")[2] not in ("bias", "scale")
