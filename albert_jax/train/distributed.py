"""Multi-process runs: processes join, and continue or fail together.

A command that may run in many processes does all its work inside `joined()`. Each process uses
its own devices; all must see the same files. The first of these that applies is used:

explicit     JAX_COORDINATOR_ADDRESS=HOST:PORT (of process 0), JAX_NUM_PROCESSES=N and
             JAX_PROCESS_ID=0…N-1 are set. JAX_NUM_PROCESSES=1 alone makes a process run on its
             own, whatever else is set.
SLURM        a step of several tasks, as `srun` starts it. A task that is alone on its node takes
             all the GPUs it sees; tasks that share a node take one each, by their local ID.
TPU          JAX asks the machine (or reads the variables that GKE sets) for the other hosts.
one process  everything else.

JAX_LOCAL_DEVICE_IDS=0,1 restricts a process to those of the GPUs it sees.
"""

import os
import sys
import traceback
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from albert_jax.config.errors import RunError

_EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_HEARTBEAT_SECONDS = 60  # a process silent for this long is considered lost
_MESSAGE_BYTES = 4096  # size limit of a message from one process to the others

HELP = (
    "Multi-process runs: under SLURM and on TPU pods the processes find one another; elsewhere "
    f"set {', '.join(_EXPLICIT[:2])} and {_EXPLICIT[2]} in each."
)


@contextmanager
def joined() -> Generator[None]:
    """Joins this process to the others that the environment describes, for the context's duration.

    Enter it before JAX computes anything. Errors inside are handled as in `fatal_errors`. The
    other processes end too: at once, or as soon as they miss this one.

    Raises:
      SystemExit: if the environment is incomplete or invalid.
    """
    try:
        options = join_options(os.environ, jax.config.values["jax_platforms"])
    except ValueError as error:
        sys.exit(f"error: {error}")
    if options is not None and not jax.distributed.is_initialized():
        jax.distributed.initialize(**options, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS)
    with fatal_errors():
        yield


@contextmanager
def fatal_errors() -> Generator[None]:
    """Ends this process at once on an error inside, if it is one of many.

    Raising the error further would deadlock: the other processes wait in a computation that
    lacks this one, and a regular exit here would wait for theirs.
    """
    try:
        yield
    except BaseException as error:
        if jax.distributed.is_initialized():
            _show(error)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        raise


def _show(error: BaseException) -> None:
    process, many = jax.process_index(), jax.process_count()
    if isinstance(error, RunError):
        if process == 0:
            print(f"error: {error}", file=sys.stderr)
        return
    traceback.print_exc()
    if not isinstance(error, SystemExit | KeyboardInterrupt):
        print(
            f"error: process {process} of {many} failed with the error above. If it lost contact "
            "with another process, see that process's output for the cause. Rerun the same "
            "command in all processes to resume from the newest checkpoint",
            file=sys.stderr,
        )


def join_options(environment: Mapping[str, str], platforms: str | None) -> dict[str, Any] | None:
    """Returns the arguments for `jax.distributed.initialize`; None for a single process.

    Args:
      environment: the environment variables.
      platforms: the platforms that JAX may use, such as `tpu,cpu`, its choice if it finds TPUs.

    Raises:
      ValueError: if some variables are missing or are not numbers.
    """
    given = {name: environment[name] for name in _EXPLICIT if environment.get(name)}
    if given.get("JAX_NUM_PROCESSES") == "1":
        return None
    if len(given) == len(_EXPLICIT):
        return {
            "coordinator_address": given["JAX_COORDINATOR_ADDRESS"],
            "num_processes": _number(given, "JAX_NUM_PROCESSES"),
            "process_id": _number(given, "JAX_PROCESS_ID"),
            "cluster_detection_method": "deactivate",
        }
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1":
        alone = tasks == environment.get("SLURM_STEP_NUM_NODES")
        # An empty list restricts nothing, whereas None takes the GPU with the task's local ID.
        chosen = [] if alone and not environment.get("JAX_LOCAL_DEVICE_IDS") else None
        return {"cluster_detection_method": "slurm", "local_device_ids": chosen}
    if given:
        missing = ", ".join(name for name in _EXPLICIT if name not in given)
        raise ValueError(f"{', '.join(given)} without {missing}: set all three, or none")
    # The other hosts are named by GKE's variable, or by Google's metadata server if allowed.
    may_ask = "TPU_WORKER_HOSTNAMES" in environment or "TPU_SKIP_MDS_QUERY" not in environment
    return {} if "tpu" in (platforms or "").split(",") and may_ask else None


@contextmanager
def agreed() -> Generator[None]:
    """Makes all processes succeed or all raise. Code inside must not wait for other processes.

    No process leaves the context before all have reached its end, so the others can then read
    what one process wrote inside.

    Raises:
      ValueError: in a process that succeeded itself, the error message of another process.
    """
    error = None
    try:
        yield
    except (ValueError, OSError) as raised:
        error = raised
    said = _gather("" if error is None else str(error) or type(error).__name__)
    if error is not None:
        raise error
    for process, message in enumerate(said):
        if message:
            raise ValueError(f"process {process}: {message}")


def wait_for_all() -> None:
    """Waits until all processes have called this."""
    _gather("")


def said_by_first(number: int) -> int:
    """Returns process 0's `number`, in all processes."""
    return int(_gather(str(number))[0])


def _gather(text: str) -> list[str]:
    """Returns the text of each process, truncated to the message size."""
    if not jax.distributed.is_initialized():
        return [text]
    mine = np.zeros(_MESSAGE_BYTES, np.uint8)
    encoded = np.frombuffer(text.encode()[:_MESSAGE_BYTES], np.uint8)
    mine[: encoded.size] = encoded
    everyone = np.asarray(multihost_utils.process_allgather(mine))
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in everyone]


def _number(given: Mapping[str, str], name: str) -> int:
    if not given[name].isdecimal():
        raise ValueError(f"{name}={given[name]!r} is not a whole number")
    return int(given[name])
