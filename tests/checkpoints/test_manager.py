"""What a save costs: the devices copy, and compile nothing."""

import logging

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.checkpoints.state import TrainState


def test_saving_what_all_devices_hold_compiles_nothing(tmp_path, caplog):
    mesh = jax.make_mesh((8,), ("data",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    kernel = jax.device_put(np.arange(64 * 24, dtype=np.float32).reshape(64, 24), everywhere)
    state = TrainState(
        jax.device_put(np.int32(3), everywhere), {"kernel": kernel}, optax.EmptyState()
    )
    with Checkpoints(tmp_path) as checkpoints:
        with jax.log_compiles(), caplog.at_level(logging.DEBUG):
            checkpoints.save(3, state, {})
            checkpoints._manager.wait_until_finished()
        found = checkpoints.restore_params(3, {"kernel": kernel})
    np.testing.assert_array_equal(found["kernel"], kernel)
    assert not [line for line in caplog.messages if line.startswith("Compiling")]
