"""LAMB against a numpy transcription, its exclusions, per-layer ratios; schedules."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from albert_jax.config import OptimizerConfig
from albert_jax.optimizer import make_optimizer, make_schedule

PARAMS = {
    "dense": {"kernel": (6, 4), "bias": (4,)},
    "norm": {"scale": (4,), "bias": (4,)},
    "stacked": {"kernel": (3, 5, 2), "bias": (3, 2)},
    "zero": {"kernel": (2, 2)},
}


def is_stacked(path: str) -> bool:
    return path.startswith("stacked/")


def draw(seed: int, scale: float = 1.0) -> dict:
    rng = np.random.default_rng(seed)

    def leaf(shape: tuple) -> np.ndarray:
        return rng.normal(size=shape, scale=scale).astype(np.float32)

    return jax.tree.map(leaf, PARAMS, is_leaf=lambda x: isinstance(x, tuple))


def numpy_lamb(params: dict, grads_of: list[dict], config: OptimizerConfig, rates: np.ndarray):
    """LAMB variable by variable in float64; a stacked leaf is one variable per layer."""
    flat = {}
    for group, leaves in params.items():
        for name, value in leaves.items():
            parts = value if is_stacked(f"{group}/") else [value]
            for i, part in enumerate(parts):
                flat[group, name, i] = np.asarray(part, np.float64)
    m = {key: np.zeros_like(w) for key, w in flat.items()}
    v = {key: np.zeros_like(w) for key, w in flat.items()}
    for t, (grads, rate) in enumerate(zip(grads_of, rates, strict=True), 1):
        leaves = [np.asarray(g, np.float64) for g in jax.tree.leaves(grads)]
        norm = np.sqrt(sum(np.sum(g**2) for g in leaves))
        clip = min(1.0, config.clip_norm / norm) if config.clip_norm else 1.0
        for group, name, i in flat:
            g = np.asarray(grads[group][name], np.float64)
            g = clip * (g[i] if is_stacked(f"{group}/") else g)
            key, w = (group, name, i), flat[group, name, i]
            m[key] = config.b1 * m[key] + (1 - config.b1) * g
            v[key] = config.b2 * v[key] + (1 - config.b2) * g**2
            mean, square = m[key], v[key]
            if config.bias_correction:
                mean, square = mean / (1 - config.b1**t), square / (1 - config.b2**t)
            update = mean / (np.sqrt(square) + config.eps)
            if name == "kernel":
                update = update + config.weight_decay * w
                w_norm, u_norm = np.linalg.norm(w), np.linalg.norm(update)
                if w_norm > 0 and u_norm > 0:
                    update = update * w_norm / u_norm
            flat[key] = w - rate * update
    return flat


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_lamb_is_the_published_algorithm(bias_correction, clip_norm):
    config = OptimizerConfig(
        learning_rate=0.02,
        warmup_steps=10,
        clip_norm=clip_norm,
        bias_correction=bias_correction,
    )
    params: Any = draw(0, 0.1)
    params["zero"]["kernel"] = np.zeros((2, 2), np.float32)  # trust ratio 1
    grads = [draw(1 + t, 0.3) for t in range(100)]
    schedule = make_schedule(config, 100)
    expected = numpy_lamb(params, grads, config, np.array([schedule(t) for t in range(100)]))

    tx = make_optimizer(config, 100, is_stacked)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for g in grads:
        updates, state = update(g, state, params)
        params = optax.apply_updates(params, updates)
    for (group, name, i), value in expected.items():
        ours = params[group][name]
        ours = ours[i] if is_stacked(f"{group}/") else ours
        np.testing.assert_allclose(ours, value, rtol=3e-5, atol=1e-6)


def test_adamw_is_optax_with_decay_on_kernels_only():
    config = OptimizerConfig(
        name="adamw", learning_rate=0.01, warmup_steps=0, clip_norm=0, bias_correction=True
    )
    params = draw(0)
    ours = make_optimizer(config, 10, is_stacked)
    mask = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
    theirs = optax.adamw(make_schedule(config, 10), eps=config.eps, weight_decay=0.01, mask=mask)
    ours_state, theirs_state = ours.init(params), theirs.init(params)
    for t in range(5):
        a, ours_state = ours.update(draw(t), ours_state, params)
        b, theirs_state = theirs.update(draw(t), theirs_state, params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), a, b)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_schedules_warm_up_and_end_at_zero(schedule):
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=20, schedule=schedule)
    rates = np.array([np.asarray(make_schedule(config, 100)(t)) for t in range(101)])
    np.testing.assert_allclose(rates[:21], np.linspace(0, 0.5, 21), rtol=1e-6)
    assert rates[100] == 0
    assert (np.diff(rates[20:]) <= 0).all()
    if schedule == "linear":
        np.testing.assert_allclose(rates[20:], np.linspace(0.5, 0, 81), atol=1e-7)
    elif schedule == "wsd":
        assert (rates[20:91] == 0.5).all()
        np.testing.assert_allclose(rates[90:], np.linspace(0.5, 0, 11), atol=1e-7)
    else:
        np.testing.assert_allclose(rates[60], 0.25, rtol=1e-5)


def test_wsd_needs_room_for_its_decay():
    config = OptimizerConfig(warmup_steps=95, schedule="wsd")
    with pytest.raises(ValueError, match=r"decay_fraction"):
        make_schedule(config, 100)


def test_the_update_stays_float32_under_jit():
    tx = make_optimizer(OptimizerConfig(), 5000, is_stacked)
    params = jax.tree.map(jnp.asarray, draw(0))
    updates, _ = jax.jit(tx.update)(draw(1), tx.init(params), params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(updates)} == {"float32"}
