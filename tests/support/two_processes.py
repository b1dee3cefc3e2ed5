"""Two processes that join, as tests start them."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from support.paths import ROOT

DEVICES = 2  # of each process

# Threads of one process may write Gloo's message at once, so that its parts are in any order.
_GLOO = re.compile(
    r"(\[Gloo\] Rank |\d+| is connected to |"
    r" peer ranks\. Expected number of connected peer ranks is : )*\s*"
)


class Ended(NamedTuple):
    """How a process ended, and what it left."""

    status: int
    out: str
    err: str
    found: dict[str, Any]


def start_two(command: Callable[[int], list[str]]) -> list[subprocess.Popen[str]]:
    """Starts a command a process, each to be waited for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    processes = []
    for i in range(2):
        env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "JAX_NUM_CPU_DEVICES": str(DEVICES),
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(i),
        }
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(command(i), env=env, stdout=pipe, stderr=pipe, text=True)
        )
    return processes


def in_two(
    name: str, folder: Path, timeout: float, command: Callable[[int], list[str]] | None = None
) -> list[Ended]:
    """Runs `distributed_runs.NAME`, or a command a process, in two processes that join."""
    script = Path(__file__).with_name("distributed_runs.py")
    processes = start_two(command or (lambda _: [sys.executable, str(script), name, str(folder)]))
    try:
        said = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    ended = []
    for i, (process, (out, err)) in enumerate(zip(processes, said, strict=True)):
        file = folder / f"{name}_{i}.json"
        found = json.loads(file.read_text()) if file.exists() else {}
        out = "".join(line for line in out.splitlines(True) if not _GLOO.fullmatch(line))
        ended.append(Ended(process.returncode, out, err, found))
    return ended
