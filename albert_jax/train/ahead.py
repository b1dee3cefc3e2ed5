"""Compiles a run's training step for devices that need not be here, without data."""

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from albert_jax.checkpoints.state import TrainState, state_spec
from albert_jax.config import Config
from albert_jax.data.masking import num_slots
from albert_jax.data.row_format import max_chunks
from albert_jax.model.sharding import BATCH, make_mesh, validate_for_devices
from albert_jax.tasks.pretraining import Pretraining
from albert_jax.train.experiment import model_builder
from albert_jax.train.optimizer import optimizer_of
from albert_jax.train.step import compile_steps


class Compiled(NamedTuple):
    """A training step's program.

    Attributes:
      text: the program.
      state: shapes and shardings of the training state.
      arguments: bytes a device of state and batch.
      temporaries: bytes a device of everything else that is alive at once.
      trace_seconds: what tracing took.
      compile_seconds: what compiling took.
    """

    text: str
    state: TrainState
    arguments: int
    temporaries: int
    trace_seconds: float
    compile_seconds: float


class DoesNotFitError(ValueError):
    """A program needs more memory than a device has; the message says how much."""


def batch_shapes(config: Config, sharding: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a batch, as `data.loader.Rows.make_batch` makes it."""
    data = config.data
    widths = {
        "input_ids token_type_ids position_ids segment_ids": data.seq_len,
        "mlm_positions mlm_labels mlm_weights": num_slots(data.seq_len, data.mask_rate),
        "cls_positions sentence_labels sentence_weights": max_chunks(data.seq_len, data.packing),
    }
    return {
        name: jax.ShapeDtypeStruct(
            (config.train.batch_size, width),
            jnp.float32 if name.endswith("_weights") else jnp.int32,
            sharding=sharding,
        )
        for names, width in widths.items()
        for name in names.split()
    }


def compile_step(config: Config, devices: Sequence[Any]) -> Compiled:
    """Compiles the step of a pretraining run for a mesh of `devices`.

    Raises:
      ValueError: if settings and devices do not go together.
      DoesNotFitError: if the compiler finds that the program exceeds a device's memory.
    """
    validate_for_devices(config, len(devices))
    mesh = make_mesh(config.mesh, devices)
    task = Pretraining(config.data.sentence_objective, config.data.sentence_weight)
    begin = time.perf_counter()
    with jax.set_mesh(mesh):
        spec = state_spec(model_builder(config, task.kind), optimizer_of(config), mesh)
        step, _ = compile_steps(task, spec, mesh, config.train.grad_accum_steps)
        batch = batch_shapes(config, NamedSharding(mesh, BATCH))
        key = jax.eval_shape(lambda: jax.random.key(0))
        lowered = step.lower(spec.abstract_state, batch, key)
        traced = time.perf_counter()
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            if "vmem" in str(error):
                raise ValueError(
                    f"a kernel needs more fast memory than a core has: {_need(str(error))}; use "
                    "--config.train.attention=xla"
                ) from error
            raise DoesNotFitError(_need(str(error))) from error
    memory: Any = compiled.memory_analysis()
    return Compiled(
        compiled.as_text() or "",
        spec.abstract_state,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes,
        traced - begin,
        time.perf_counter() - traced,
    )


def _need(message: str) -> str:
    """Returns what XLA says of memory, such as `Used 19.2G of 15.75G hbm`, and nothing else."""
    found = re.search(r"Used \S+ of \S+ \w+", message)
    return found[0].replace("Used", "used") if found else message.partition("\n")[0]
