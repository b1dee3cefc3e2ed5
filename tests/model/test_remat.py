"""What `train.remat` costs and saves, read from the compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.models import random_batch, tiny_model

from albert_jax.model import PRETRAINING, Albert, Compute

pytestmark = pytest.mark.slow

SIZES = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6}


def compiled(remat):
    """The compiled loss and gradient, and what they give."""
    config = tiny_model(**SIZES)
    model = Albert(config, PRETRAINING, compute=Compute(remat=remat), rngs=nnx.Rngs(0))
    graphdef, params = nnx.split(model, nnx.Param)
    batch = {name: jnp.asarray(array) for name, array in random_batch().items()}

    def loss(params, batch):
        names = ("input_ids", "token_type_ids", "position_ids", "segment_ids")
        output = nnx.merge(graphdef, params)(*(batch[name] for name in names))
        return jnp.mean(jnp.square(output.last_hidden_state))

    program = jax.jit(jax.value_and_grad(loss)).lower(params, batch).compile()
    return program, jax.device_get(program(params, batch))


@pytest.fixture(scope="module")
def programs():
    return {remat: compiled(remat) for remat in ("none", "dots", "full")}


def test_more_is_computed_again_and_less_is_kept(programs):
    flops, temporaries = (
        {remat: measure(program) for remat, (program, _) in programs.items()}
        for measure in (
            lambda program: program.cost_analysis()["flops"],
            lambda program: program.memory_analysis().temp_size_in_bytes,
        )
    )
    assert flops["none"] < flops["dots"] < 0.9 * flops["full"]
    assert temporaries["none"] > 1.1 * temporaries["dots"] > 1.1 * temporaries["full"]


def test_nothing_else_changes(programs):
    expected_loss, expected = programs["none"][1]
    for remat in ("dots", "full"):
        loss, gradients = programs[remat][1]
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
            gradients,
            expected,
        )
