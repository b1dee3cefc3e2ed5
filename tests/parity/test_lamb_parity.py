"""100 updates of LAMB against the published algorithm in float64, of AdamW against torch's."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest

from albert_jax.config import OptimizerConfig
from albert_jax.train.optimizer import make_optimizer

NUM_STEPS = 100
SHAPES = {
    "dense": {"kernel": (6, 4), "bias": (4,)},
    "norm": {"scale": (4,), "bias": (4,)},
    "stacked": {"kernel": (3, 5, 2), "bias": (3, 2)},
    "empty": {"kernel": (2, 2)},
    "silent": {"kernel": (4, 3)},
}
EMPTY_LAYER, SILENT_LAYER = 1, 2  # of the stacked kernel
EMPTY_STEPS = (0, 37)  # no gradient at all

# A variable is a group, a name and a layer; LAMB takes norms over one of them.
Variables = dict[tuple[str, str, int], np.ndarray]


def is_stacked(path: str) -> bool:
    return path.startswith("stacked/")


def draw(seed: int, size: float) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {
        group: {name: rng.normal(size=shape, scale=size) for name, shape in leaves.items()}
        for group, leaves in SHAPES.items()
    }


def initial_params() -> dict[str, dict[str, np.ndarray]]:
    params = draw(0, 0.1)
    params["norm"]["scale"] += 1
    params["empty"]["kernel"][:] = 0
    params["stacked"]["kernel"][EMPTY_LAYER] = 0
    return params


def make_grads() -> list[dict]:
    """A gradient a step; sizes change, so that clipping comes and goes."""
    grads = [draw(1 + t, 0.05 * (1 + t % 7)) for t in range(NUM_STEPS)]
    for t, grad in enumerate(grads):
        grad["silent"]["kernel"][:] = 0
        grad["stacked"]["kernel"][SILENT_LAYER] = 0
        if t in EMPTY_STEPS:
            grads[t] = jax.tree.map(np.zeros_like, grad)
    return grads


def variables(tree: dict) -> Variables:
    return {
        (group, name, i): np.array(part, np.float64)
        for group, leaves in tree.items()
        for name, value in leaves.items()
        for i, part in enumerate(value if is_stacked(f"{group}/") else [value])
    }


def rate(config: OptimizerConfig, t: int) -> float:
    """Linear warmup, linear decay to 0; t counts from 0."""
    if t < config.warmup_steps:
        return config.learning_rate * t / config.warmup_steps
    return config.learning_rate * (NUM_STEPS - t) / (NUM_STEPS - config.warmup_steps)


def clipped(grads: Variables, clip_norm: float) -> Variables:
    norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
    factor = clip_norm / norm if 0 < clip_norm < norm else 1.0
    return {key: factor * g for key, g in grads.items()}


def published_lamb(config: OptimizerConfig) -> Iterator[Variables]:
    """Yields the parameters after each update.

    Source: google-research/albert lamb_optimizer.py, `apply_gradients`, and optimization.py,
    `create_optimizer`; with `bias_correction`, arXiv:1904.00962, Algorithm 2.
    """
    params = variables(initial_params())
    m = {key: np.zeros_like(x) for key, x in params.items()}
    v = {key: np.zeros_like(x) for key, x in params.items()}
    for t, grads in enumerate(make_grads()):
        for key, g in clipped(variables(grads), config.clip_norm).items():
            x = params[key]
            m[key] = config.b1 * m[key] + (1 - config.b1) * g
            v[key] = config.b2 * v[key] + (1 - config.b2) * g**2
            m_hat, v_hat = m[key], v[key]
            if config.bias_correction:
                m_hat = m_hat / (1 - config.b1 ** (t + 1))
                v_hat = v_hat / (1 - config.b2 ** (t + 1))
            update = m_hat / (np.sqrt(v_hat) + config.eps)
            if key[1] == "kernel":  # neither norms nor biases
                update += config.weight_decay * x
                x_norm, update_norm = np.linalg.norm(x), np.linalg.norm(update)
                if x_norm > 0 and update_norm > 0:
                    update *= x_norm / update_norm
            params[key] = x - rate(config, t) * update
        yield dict(params)


def torch_adamw(config: OptimizerConfig) -> Iterator[Variables]:
    """Yields the parameters after each update, in float64; norms and biases do not decay."""
    import torch

    params = {
        key: torch.nn.Parameter(torch.from_numpy(x))
        for key, x in variables(initial_params()).items()
    }
    groups = [
        {
            "params": [p for key, p in params.items() if (key[1] == "kernel") == decays],
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for decays in (True, False)
    ]
    adamw = torch.optim.AdamW(groups, betas=(config.b1, config.b2), eps=config.eps)
    for t, grads in enumerate(make_grads()):
        for key, g in clipped(variables(grads), config.clip_norm).items():
            params[key].grad = torch.from_numpy(g)
        for group in adamw.param_groups:
            group["lr"] = rate(config, t)
        adamw.step()
        yield {key: p.detach().numpy().copy() for key, p in params.items()}


def ours(config: OptimizerConfig, dtype: str) -> Iterator[Variables]:
    tx = make_optimizer(config, NUM_STEPS, is_stacked)
    params: Any = jax.tree.map(lambda x: jax.numpy.asarray(x, dtype), initial_params())
    # The step is an int32, from which float64 would get a schedule in float32.
    counted = {"int32": "int64"} if dtype == "float64" else {}
    state = jax.tree.map(lambda x: x.astype(counted.get(x.dtype.name, x.dtype)), tx.init(params))
    update = jax.jit(tx.update)
    for grads in make_grads():
        grads = jax.tree.map(lambda g: jax.numpy.asarray(g, dtype), grads)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {dtype}
        yield variables(params)


def largest_error(found: Iterator[Variables], expected: Iterator[Variables]) -> float:
    """The largest ‖found - expected‖ / ‖expected‖ of any variable after any update."""
    errors = []
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key, value in b.items():
            distance, size = np.linalg.norm(a[key] - value), np.linalg.norm(value)
            assert size > 0 or distance == 0, key
            errors.append(distance / size if size > 0 else 0.0)
    assert len(errors) == NUM_STEPS * len(variables(initial_params()))
    return max(errors)


def check(config: OptimizerConfig, expected: Callable[[OptimizerConfig], Any]) -> None:
    error = largest_error(ours(config, "float32"), expected(config))
    with jax.enable_x64(True):
        error_64 = largest_error(ours(config, "float64"), expected(config))
    print(f"{error:.1e} in float32, {error_64:.1e} in float64")
    assert error < 1e-6  # 7e-7 is float32's rounding over 100 updates
    assert error_64 < 1e-12


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("bias_correction", [False, True])
def test_lamb_is_the_published_algorithm(bias_correction, clip_norm):
    config = OptimizerConfig(
        learning_rate=0.02,
        warmup_steps=10,
        clip_norm=clip_norm,
        bias_correction=bias_correction,
    )
    check(config, published_lamb)


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_adamw_is_that_of_torch(clip_norm):
    config = OptimizerConfig(
        name="adamw",
        learning_rate=0.02,
        warmup_steps=10,
        clip_norm=clip_norm,
        bias_correction=True,
    )
    check(config, torch_adamw)


def test_the_cases_are_met():
    """Clipping comes and goes, empty variables move, the silent one only decays."""
    sizes = [
        np.sqrt(sum(np.sum(g**2) for g in variables(grads).values())) for grads in make_grads()
    ]
    assert 10 < sum(size > 1 for size in sizes) < 90
    assert [t for t, size in enumerate(sizes) if size == 0] == list(EMPTY_STEPS)
    config = OptimizerConfig(learning_rate=0.02, warmup_steps=10)
    after = list(published_lamb(config))
    for key in (("empty", "kernel", 0), ("stacked", "kernel", EMPTY_LAYER)):
        assert not after[0][key].any()
        assert after[-1][key].all()
    for key in (("silent", "kernel", 0), ("stacked", "kernel", SILENT_LAYER)):
        # All of its update is decay, which the trust ratio brings to the size of the weights.
        np.testing.assert_allclose(after[10][key], after[9][key] * (1 - 0.02), rtol=1e-12)
