"""Counts the instructions of the attention kernel in the compiler's schedule for TPUs.

    python benchmarks/kernel_schedule.py --output kernels.jsonl      (needs jax[tpu], and no TPU)

XLA makes no estimate of a kernel's time, but its compiler writes down what it schedules: a bundle
of instructions a cycle, for one core. The kernel has no loop, so its bundles are the cycles of one
place in its grid, if nothing waits for memory. Against them stand the FLOPs that the mathematics
needs: 2 products of slots × slots × head size forward, 5 backward. The share of peak is what
`train/chips.py` counts the kernel at.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # nothing is run

from machine import describe, record

CORES = {"v5e": 1, "v5p": 2, "v6e": 1}
SLOTS = 512


def compile_kernel(chip: str, head_size: int) -> None:
    """Compiles attention forward and backward; the compiler's dump goes where its flags say."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    from albert_jax.model.tpu_attention import tpu_attention
    from albert_jax.train.chips import describe_devices

    _, devices = describe_devices(f"{chip}:4")
    sharding = NamedSharding(Mesh(np.array(devices[:1]), ("data",)), P())
    x = jax.ShapeDtypeStruct((8, SLOTS, 768), jnp.bfloat16, sharding=sharding)
    bias = jax.ShapeDtypeStruct((768,), jnp.bfloat16, sharding=sharding)
    ids = jax.ShapeDtypeStruct((8, SLOTS), jnp.int32, sharding=sharding)

    def both(q, k, v, bias, grad, ids):
        def attend(*qkv):
            return tpu_attention(qkv, [bias] * 3, ids, 768 // head_size)

        y, pull = jax.vjp(attend, q, k, v)
        return y, pull(grad)

    jax.jit(both).lower(x, x, x, bias, x, ids).compile()


def bundles(folder: Path, kernel: str) -> int:
    """The scheduled bundles of a kernel, from the dump of its last stage."""
    (path,) = folder.glob(f"*attention_{kernel}*schedule-analysis_final_bundles.txt")
    found = re.search(r"total scheduled bundles:\s+(\d+)", path.read_text())
    assert found, path
    return int(found[1])


def measure(chip: str, head_size: int) -> dict[str, object]:
    from albert_jax.train.chips import CHIPS

    with tempfile.TemporaryDirectory() as folder:
        flags = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true"
        command = [sys.executable, __file__, "--compile", chip, str(head_size)]
        subprocess.run(command, check=True, env=os.environ | {"LIBTPU_INIT_ARGS": flags})
        cycles = {kernel: bundles(Path(folder), kernel) for kernel in ("forward", "backward")}
    figures = CHIPS[chip]
    assert figures.clock
    peak = figures.flops / figures.clock / CORES[chip]  # FLOPs a cycle and core
    heads = max(1, 128 // head_size)  # in a program of the grid
    product = 2 * SLOTS * SLOTS * head_size * heads
    shares = {
        kernel: count * product / peak / cycles[kernel]
        for kernel, count in (("forward", 2), ("backward", 5))
    }
    return {"chip": chip, "head_size": head_size, "bundles": cycles, "share_of_peak": shares}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Reads the schedule of the attention kernel.")
    parser.add_argument("--compile", nargs=2, metavar=("CHIP", "HEAD_SIZE"), help="by itself")
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    args = parser.parse_args()
    if args.compile:
        compile_kernel(args.compile[0], int(args.compile[1]))
        return
    for chip in CORES:
        for head_size in (64, 128):
            record({**describe(), **measure(chip, head_size)}, args.output)


if __name__ == "__main__":
    main()
