"""One run in many processes: they join, and go on or fail together.

A command that may run in many processes does all its work in `joined()`. Each process uses its
own devices; all must see the same files. Which of these holds is found out, first to last:

explicit     JAX_COORDINATOR_ADDRESS=HOST:PORT (of process 0), JAX_NUM_PROCESSES=N and
             JAX_PROCESS_ID=0…N-1 are set. JAX_NUM_PROCESSES=1 alone makes a process keep to
             itself wherever it runs.
SLURM        a step of several tasks, as `srun` starts it. A task that is alone on its node takes
             all GPUs that it sees; tasks that share a node take one each, by their local number.
TPU          jax asks the machine (or the variables that GKE sets) for its neighbours.
one process  everything else.

JAX_LOCAL_DEVICE_IDS=0,1 gives a process these GPUs of those that it sees.
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
_HEARTBEAT_SECONDS = 60  # after which a process that is not heard of is taken for lost
_MESSAGE_BYTES = 4096  # what one process can tell the others

HELP = (
    "Many processes: under SLURM and on TPU pods they find one another; elsewhere set "
    f"{', '.join(_EXPLICIT[:2])} and {_EXPLICIT[2]} in each."
)


@contextmanager
def joined() -> Generator[None]:
    """Within it, this process is one of those that the environment describes.

    To be entered before jax computes anything. Errors within are `fatal_errors`. The others
    end too: at once, or as soon as they miss this one.

    Raises:
      SystemExit: where the environment does not say enough.
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
    """An error within ends this process at once if it is one of many.

    To raise it further would be of no use: the others wait in a computation in which this
    one is missing, and its regular exit would wait for theirs.
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
            f"error: process {process} of {many} ends by the error above. Where it missed another "
            "one, that one's own words say why. The same command in all goes on from the newest "
            "checkpoint",
            file=sys.stderr,
        )


def join_options(environment: Mapping[str, str], platforms: str | None) -> dict[str, Any] | None:
    """What to give to `jax.distributed.initialize`; None for a process of its own.

    Args:
      environment: the variables.
      platforms: those that jax may use, as `tpu,cpu`, its choice where it finds TPU chips.

    Raises:
      ValueError: where some variables are missing, or are no numbers.
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
        # An empty list restricts nothing, where None takes the GPU of the task's local number.
        chosen = [] if alone and not environment.get("JAX_LOCAL_DEVICE_IDS") else None
        return {"cluster_detection_method": "slurm", "local_device_ids": chosen}
    if given:
        missing = ", ".join(name for name in _EXPLICIT if name not in given)
        raise ValueError(f"{', '.join(given)} without {missing}: set all three, or none")
    # Neighbours are told by GKE's variable, or by Google's metadata server if it may be asked.
    may_ask = "TPU_WORKER_HOSTNAMES" in environment or "TPU_SKIP_MDS_QUERY" not in environment
    return {} if "tpu" in (platforms or "").split(",") and may_ask else None


@contextmanager
def agreed() -> Generator[None]:
    """Within it, either all processes succeed or all raise. Nothing in it may wait for others.

    None leaves it before all have come to its end, so what one has written in it, the
    others can read afterwards.

    Raises:
      ValueError: in a process without an error of its own, what another one said.
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
    """Returns when all processes have come here."""
    _gather("")


def said_by_first(number: int) -> int:
    """The number that process 0 came with, in all processes."""
    return int(_gather(str(number))[0])


def _gather(text: str) -> list[str]:
    """The text of each process, cut to what fits."""
    if not jax.distributed.is_initialized():
        return [text]
    mine = np.zeros(_MESSAGE_BYTES, np.uint8)
    encoded = np.frombuffer(text.encode()[:_MESSAGE_BYTES], np.uint8)
    mine[: encoded.size] = encoded
    everyone = np.asarray(multihost_utils.process_allgather(mine))
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in everyone]


def _number(given: Mapping[str, str], name: str) -> int:
    if not given[name].isdecimal():
        raise ValueError(f"{name}={given[name]!r} is no number")
    return int(given[name])
