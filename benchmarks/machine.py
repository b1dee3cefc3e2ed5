"""Describes the machine of a measurement and its peak performance."""

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "transformers")


def describe() -> dict[str, Any]:
    """Device, versions and date."""
    versions = {
        name: importlib.metadata.version(name)
        for name in _PACKAGES
        if importlib.util.find_spec(name) is not None
    }
    kind = jax.devices()[0].device_kind
    return {
        "date": datetime.date.today().isoformat(),
        "device": f"{jax.device_count()} × {processor() if kind == 'cpu' else kind}",
        "versions": {"python": platform.python_version(), **versions},
    }


def processor() -> str:
    """The CPU's name, and how many cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(sorted(names))}, {len(os.sched_getaffinity(0))} cores"


def matmul_flops(dtype: str) -> float:
    """FLOP/s of the fastest of some large matrix products: what a step is measured against."""
    best = 0.0
    for size in (1024, 2048, 4096) if jax.default_backend() == "cpu" else (4096, 8192):
        x = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
        product = jax.jit(jnp.matmul)
        jax.block_until_ready(product(x, x))
        for _ in range(5):
            start = time.perf_counter()
            jax.block_until_ready(product(x, x))
            best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def record(found: dict[str, Any], output: Path | None) -> None:
    """Prints a JSON line, and appends it to `output` if there is one."""
    line = json.dumps(found)
    print(line, flush=True)
    if output:
        with output.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
