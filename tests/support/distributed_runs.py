"""What two processes do at once in test_distributed.py: `python distributed_runs.py NAME FOLDER`.

Each process writes what it found to FOLDER/NAME_PROCESS.json.
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from albert_jax import evaluate
from albert_jax.config import MeshConfig
from albert_jax.config.load import load_config
from albert_jax.model.sharding import global_batch, local_rows, make_mesh
from albert_jax.train import __main__ as command
from albert_jax.train import loop, make_experiment
from albert_jax.train.distributed import agreed, joined
from albert_jax.train.initialization import start_with

ROWS = 8


def parts(folder: Path) -> dict[str, Any]:
    """Errors, files, batches and weights, each made of what both processes hold."""
    me = jax.process_index()
    with agreed():
        if me == 0:
            (folder / "note.txt").write_text("of process 0")
    return {
        "note": (folder / "note.txt").read_text(),
        "error": _error_of_process_1(),
        "batches": {name: _gathered_batch(*mesh) for name, mesh in _meshes().items()},
        "weights": _gathered_weights(),
    }


def _error_of_process_1() -> str:
    try:
        with agreed():
            if jax.process_index() == 1:
                raise FileNotFoundError("no rows here")
    except (ValueError, FileNotFoundError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _meshes() -> dict[str, tuple[MeshConfig, list[Any]]]:
    devices = jax.devices()
    apart = [devices[i] for i in (0, 2, 1, 3)]  # a process's rows do not follow one another
    return {
        "data": (MeshConfig(), devices),
        "data, apart": (MeshConfig(), apart),
        "fsdp over both": (MeshConfig(data=2, fsdp=2), apart),
        "tensor over both": (MeshConfig(data=2, tensor=2), apart),
    }


def _gathered_batch(config: MeshConfig, devices: list[Any]) -> list[int]:
    """Row numbers of a batch of which each process made its own rows alone."""
    mesh = make_mesh(config, devices)
    batch = global_batch({"rows": local_rows(mesh, ROWS).astype(np.int32)}, mesh, ROWS)
    whole = jax.jit(lambda x: x * 1, out_shardings=NamedSharding(mesh, P()))(batch["rows"])
    return np.asarray(whole).tolist()


def _gathered_weights() -> list[float]:
    """Weights that every process has read, in place of fresh ones that are split."""
    sharding = NamedSharding(make_mesh(MeshConfig()), P(None, "data"))
    zeros = jax.jit(lambda: jax.numpy.zeros((2, 4)), out_shardings=sharding)()
    read: Any = SimpleNamespace(params={"head": np.arange(8.0, dtype=np.float32).reshape(2, 4)})
    params = start_with(read, {"head": zeros})
    assert params["head"].sharding == sharding
    return multihost_utils.process_allgather(params["head"], tiled=True).ravel().tolist()


def runs(folder: Path) -> dict[str, Any]:
    """A run, one begun by a single process, an evaluation and two seeds, by the commands."""
    config = ["--config", str(folder / "pretrain.py")]
    fine_tuning = ["--config", str(folder / "finetune.py")]
    done = [
        command.main([*config, "--workdir", str(folder / "two")]),
        command.main([*config, "--workdir", str(folder / "grown"), "--config.mesh.fsdp=2"]),
        command.main([*config, "--workdir", str(folder / "two"), "--config.train.seed=5"]),
        command.main([*fine_tuning, "--workdir", str(folder / "two_seeds")]),
    ]
    return {"exit codes": done, "evaluated": evaluate.evaluate(folder / "two")}


def stopped(folder: Path) -> dict[str, Any]:
    """Process 1 alone is asked to stop."""
    experiment = make_experiment(load_config(str(folder / "some.py")), folder / "run")

    def batches(first: int) -> Any:
        for step, batch in enumerate(experiment.train_batches(first), first + 1):
            if step == 3 and jax.process_index() == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    return {"step": int(loop.train(experiment._replace(train_batches=batches)).step)}


def lost(folder: Path) -> dict[str, Any]:
    """Process 1 fails where process 0 waits for it."""
    multihost_utils.sync_global_devices("both are here")
    if jax.process_index() == 1:
        raise RuntimeError("out of memory, say")
    multihost_utils.sync_global_devices("never passed")
    return {}


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    with joined():
        found = {"parts": parts, "runs": runs, "stopped": stopped, "lost": lost}[name](folder)
        (folder / f"{name}_{jax.process_index()}.json").write_text(json.dumps(found))
