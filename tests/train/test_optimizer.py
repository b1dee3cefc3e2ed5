"""Learning rate schedules, and the type of the update; test_lamb_parity.py has the algorithms."""

import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.runs import assert_same_end, numbers
from support.tiny_runs import tiny_config

from albert_jax.checkpoints.formats.run import read_run_weights
from albert_jax.config import OptimizerConfig
from albert_jax.config.conversion import Options
from albert_jax.convert import convert
from albert_jax.train import make_experiment
from albert_jax.train.loop import train
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


# ---- by name ----


def encoder(**leaves):
    return {"encoder": {"group_0": {"inner_group_0": {"ffn": {"output": leaves}}}}}


def test_muon_turns_matrices_each_on_its_own():
    config = OptimizerConfig(
        name="muon", learning_rate=0.5, warmup_steps=0, clip_norm=0.0, weight_decay=0.0
    )
    draw = np.random.default_rng(0)
    kernel = jnp.asarray(draw.normal(size=(3, 8, 4)), jnp.float32)  # of three layers
    params = encoder(kernel=kernel, bias=jnp.ones((3, 4))) | {"mlm": {"bias": jnp.ones(5)}}
    gradients = jax.tree.map(lambda x: jnp.asarray(draw.normal(size=x.shape), jnp.float32), params)
    tx = make_optimizer(config, 100, is_stacked=lambda path: True)
    updates: Any = jax.jit(tx.update)(gradients, tx.init(params), params)[0]
    turned = updates["encoder"]["group_0"]["inner_group_0"]["ffn"]["output"]["kernel"]
    for layer in np.asarray(turned):
        sizes = np.linalg.svd(layer, compute_uv=False)
        assert sizes.min() > 0.6 * sizes.max()  # of a matrix as it comes: about 0.3
        # As large as Adam's update at this rate: 0.2 an element, by the square root of its size.
        assert np.sqrt(np.mean(layer**2)) == pytest.approx(0.5 * 0.2, rel=0.3)
    first = 0.5 * (1 + 0.9 * 0.1 / (1 - 0.9**2))  # of Adam with Nesterov's momentum
    np.testing.assert_allclose(np.abs(updates["mlm"]["bias"]), first, rtol=1e-3)


def test_optimizers_of_optax_and_their_options():
    params = {"encoder": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}

    def update(**settings):
        config = OptimizerConfig(warmup_steps=0, learning_rate=0.1, **settings)
        tx = make_optimizer(config, 100, lambda _: False)
        gradients = jax.tree.map(lambda x: 3.0 * x, params)
        updates: Any = tx.update(gradients, tx.init(params), params)[0]
        return updates["encoder"]

    lion = update(name="lion", weight_decay=0.5, clip_norm=0.0)
    np.testing.assert_allclose(lion["bias"], -0.1, rtol=1e-6)  # no decay of biases
    np.testing.assert_allclose(lion["kernel"], -0.1 * 1.5, rtol=1e-6)
    plain = update(name="sgd", weight_decay=0.0, clip_norm=0.0)
    np.testing.assert_allclose(plain["kernel"], -0.3, rtol=1e-6)
    options = Options(momentum=0.5, nesterov=True)
    nesterov = update(name="sgd", weight_decay=0.0, clip_norm=0.0, options=options)
    np.testing.assert_allclose(nesterov["kernel"], -0.45, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "lam"}, r"optimizer.name='lam' is not an optimizer; did you mean 'lamb'"),
        ({"name": "linear_schedule"}, "is not an optimizer"),
        ({"name": "sgd"}, r"optimizer.weight_decay=0.01: optax.sgd has no weight decay; set it"),
        ({"name": "lion", "b1": 0.8}, r"optimizer.b1 do not apply to lion: add --config.*b1=0.9"),
        ({"name": "muon", "options": Options(ns_steps="abc")}, r"'muon' does not work with"),
        ({"name": "lbfgs", "weight_decay": 0.0}, r"'lbfgs' does not work with"),
        ({"name": "adafactor"}, r"adafactor has no weight decay; set it to 0"),
        ({"name": "scale_by_learning_rate"}, "is not an optimizer"),
        ({"name": "muon", "options": Options(ns_step=6)}, r"options.ns_step; did you mean 'ns_s"),
        ({"name": "adamw", "options": Options(b1=0.8)}, r"adamw takes none; use optimizer.b1"),
    ],
)
def test_optimizers_that_there_are_not(settings, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(OptimizerConfig(**settings), 10_000, lambda _: False)


@pytest.mark.slow
def test_a_run_with_muon_resumes_to_the_bit_and_keeps_its_state_to_itself(rows, tmp_path):
    optimizer = {"name": "muon", "learning_rate": 0.01, "options": {"ns_steps": 6}}
    settings = {"share": "ffn", "num_hidden_layers": 2}
    config = tiny_config(
        rows, optimizer=optimizer, model=settings, mesh={"data": 4, "fsdp": 2},
        train={"num_steps": 4, "eval_every": 2, "checkpoint_every": 2},
    )  # fmt: skip
    assert config.optimizer.options == {"ns_steps": 6}
    train(make_experiment(config, tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    train(make_experiment(config, tmp_path / "run"))
    assert_same_end(tmp_path / "whole", tmp_path / "run", config)
    losses = [m["mlm_loss"] for m in numbers(tmp_path / "run") if m["split"] == "validation"]
    assert losses[1] < losses[0]
    convert(str(tmp_path / "run"), tmp_path / "copy", "orbax", None, None)
    assert read_run_weights(tmp_path / "copy").step == 0


def test_an_optimizer_that_keeps_parts_of_its_parameters_is_sharded(rows, tmp_path):
    config = tiny_config(
        rows, optimizer={"name": "adafactor", "weight_decay": 0.0}, mesh={"data": 2, "tensor": 4},
        train={"num_steps": 4, "eval_every": 4},
    )  # fmt: skip
    train(make_experiment(config, tmp_path))
    losses = [line["mlm_loss"] for line in numbers(tmp_path)]
    assert np.isfinite(losses).all()
