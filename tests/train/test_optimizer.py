"""Learning rate schedules, and the type of the update; test_lamb_parity.py has the algorithms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from albert_jax.config import OptimizerConfig
from albert_jax.train.optimizer import make_optimizer, make_schedule


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
    for name in ("lamb", "adamw"):
        config = OptimizerConfig(name=name, bias_correction=name == "adamw")
        tx = make_optimizer(config, 5000, is_stacked=lambda path: True)
        params = {"kernel": jnp.ones((3, 5, 2)), "bias": jnp.ones((3, 2))}
        updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(updates)} == {"float32"}
