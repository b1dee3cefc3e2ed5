"""The update does not depend on devices, mesh or accumulation, and compiles once."""

import functools
import re
from typing import Any

import jax
import numpy as np
import pytest
from support.models import random_batch, tiny_config

from albert_jax.checkpoints.state import TrainState, state_spec
from albert_jax.config import Config
from albert_jax.model.sharding import global_batch, make_mesh
from albert_jax.tasks.pretraining import Pretraining
from albert_jax.train.experiment import model_builder
from albert_jax.train.optimizer import optimizer_of
from albert_jax.train.step import compile_steps


@functools.cache  # many tests compare with the same plain run
def run(config: Config, num_devices: int = 1, steps: int = 4) -> tuple[TrainState, list[float]]:
    """A few updates on fixed batches: the final state and the losses."""
    mesh = make_mesh(config.mesh, jax.devices()[:num_devices])
    task = Pretraining(config.data.sentence_objective, config.data.sentence_weight)
    spec = state_spec(model_builder(config, task.kind), optimizer_of(config), mesh)
    losses = []
    with jax.set_mesh(mesh):
        state = spec.init(jax.random.key(0))
        step, _ = compile_steps(task, spec, mesh, config.train.grad_accum_steps)
        for i in range(steps):
            batch = global_batch(random_batch(seed=i), mesh, 8)
            state, metrics = step(state, batch, jax.random.key(1))
            losses.append(float(metrics["loss"].total))
    assert step._cache_size() == 1, "the step was compiled again"
    return state, losses


def assert_same(ours: tuple[TrainState, Any], theirs: tuple[TrainState, Any]) -> None:
    np.testing.assert_allclose(ours[1], theirs[1], rtol=2e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
        ours[0].params,
        theirs[0].params,
    )


@pytest.mark.parametrize("share", ["all", pytest.param("none", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 2, 2),
        *(
            pytest.param(s, marks=pytest.mark.slow)
            for s in ((8, 1, 1), (1, 8, 1), (1, 2, 4), (4, 1, 2))
        ),
    ],
    ids=str,
)
def test_any_mesh_of_8_devices_computes_what_one_device_does(sizes, share):
    data, fsdp, tensor = sizes
    mesh = {"data": data, "fsdp": fsdp, "tensor": tensor}
    one = run(tiny_config(model={"share": share}))
    eight = run(tiny_config(model={"share": share}, mesh=mesh), num_devices=8)
    assert_same(eight, one)
    kernel = eight[0].params["encoder"]["group_0"]["inner_group_0"]["ffn"]["intermediate"][
        "kernel"
    ]
    assert kernel.addressable_shards[0].data.size == kernel.size // (fsdp * tensor)


@pytest.mark.parametrize("num_devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_accumulation_changes_nothing_but_rounding(num_devices):
    whole = run(tiny_config())
    parts = run(tiny_config(train={"grad_accum_steps": 4}), num_devices)
    assert_same(parts, whole)


def test_the_sentence_loss_counts_by_its_weight():
    def loss(**data: float) -> float:
        return run(tiny_config(data=data), steps=1)[1][0]

    whole, half, without = (loss(sentence_weight=weight) for weight in (1.0, 0.5, 0.0))
    assert whole > without
    assert half == pytest.approx((whole + without) / 2, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(4, 1), (1, 4), (2, 2)], ids=str)
def test_gradients_are_added_up_over_devices_once(sizes):
    config = tiny_config(
        mesh=dict(zip(("data", "fsdp"), sizes, strict=True)), train={"grad_accum_steps": 2}
    )
    mesh, task = make_mesh(config.mesh, jax.devices()[:4]), Pretraining("sop")
    spec = state_spec(model_builder(config, task.kind), optimizer_of(config), mesh)
    with jax.set_mesh(mesh):
        step, _ = compile_steps(task, spec, mesh, 2)
        batch = global_batch(random_batch(), mesh, 8)
        program = step.lower(spec.abstract_state, batch, jax.random.key(1)).compile().as_text()
    spoken = re.findall(r" (?:all-reduce|all-gather|reduce-scatter|all-to-all)\(.*", program)
    assert spoken
    # Neither the loop over layers nor that over the parts of an accumulation has any.
    assert not [line for line in spoken if "while" in line]


@pytest.mark.slow
def test_state_mirrors_the_sharding_of_the_parameters():
    config = tiny_config(mesh={"fsdp": 2, "tensor": 4})
    state, _ = run(config, num_devices=8, steps=1)
    mu = optimizer_moments(state)
    assert jax.tree.all(jax.tree.map(lambda m, p: m.sharding == p.sharding, mu, state.params))


def optimizer_moments(state: TrainState) -> Any:
    found = [part.mu for part in state.opt_state if hasattr(part, "mu")]
    assert len(found) == 1
    return found[0]


@pytest.mark.slow
def test_dropout_depends_on_the_step_and_the_key_alone():
    config = tiny_config(model={"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3})
    once, again = run(config), run.__wrapped__(config)
    assert once[1] == again[1]
    plain = run(tiny_config())
    assert abs(once[1][0] - plain[1][0]) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"mesh": {"data": 2}},
        {"mesh": {"data": 2}, "train": {"grad_accum_steps": 2}},
        {"train": {"grad_accum_steps": 4}},
        {"mesh": {"data": 1, "fsdp": 2}},
    ],
    ids=str,
)
def test_dropout_of_a_row_does_not_depend_on_devices_or_accumulation(changes):
    model = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}
    num_devices = 2 if "mesh" in changes else 1
    assert_same(
        run(tiny_config(model=model, **changes), num_devices), run(tiny_config(model=model))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "train", [{"remat": "dots"}, {"remat": "full"}, {"unroll": 2}, {"unroll": 99}], ids=str
)
def test_how_layers_are_looped_over_changes_nothing_but_rounding(train):
    assert_same(run(tiny_config(train=train)), run(tiny_config()))


@pytest.mark.slow
def test_bfloat16_follows_float32():
    exact, rough = run(tiny_config()), run(tiny_config(train={"dtype": "bfloat16"}))
    np.testing.assert_allclose(rough[1], exact[1], rtol=0.02)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(rough[0].params))
