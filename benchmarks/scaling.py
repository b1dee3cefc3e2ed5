"""What a sharded training step communicates, and the estimated cost on 8 to 512 devices.

    python benchmarks/scaling.py --config configs/base.py

Compiles the step for several meshes of simulated devices and reads every collective out of the
compiled program: how often it runs (counting loop iterations) and its bytes, next to the bytes
that the sharding should need. From the bytes of the mesh that splits only the batch, and the
vendors' figures for speed and bandwidth, it estimates the fraction of time that 8 to 512 devices
would compute, as a table and a figure; none of that is measured.

Prints a JSON object per mesh and appends it to --output, with the table and figure next to it.
"""

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
from machine import describe, record

from albert_jax.config import Config, MeshConfig
from albert_jax.config.load import load_config
from albert_jax.train.ahead import compile_step
from albert_jax.train.chips import CHIPS, Chip, describe_devices
from albert_jax.train.costs import step_flops
from albert_jax.train.program import Program

DEVICES = 8
MESHES = (
    MeshConfig(data=8),
    MeshConfig(data=1, fsdp=8),
    MeshConfig(data=2, fsdp=4),
    MeshConfig(data=4, tensor=2),
)
COUNTS = (8, 16, 32, 64, 128, 256, 512)
NAMES = {"h100": "H100 SXM, NVLink, InfiniBand 400", "v5p": "TPU v5p", "v5e": "TPU v5e"}
REACHED = 0.5  # share of the peak that a step is taken to reach


def expected_bytes(mesh: MeshConfig, params: int) -> str:
    """What the sharding should take, of float32 parameters and gradients."""
    gradients = 4 * params
    if mesh.tensor > 1:
        return f"{gradients / mesh.tensor / 1e6:.1f} of gradients, and activations twice a block"
    weights = ", and the weights that are split, once" if mesh.fsdp > 1 else ""
    return f"{gradients / 1e6:.1f} of gradients, once{weights}"


def report(config: Config, mesh: MeshConfig, accum_steps: int) -> dict[str, Any]:
    """What the step of a mesh communicates."""
    train = dataclasses.replace(config.train, grad_accum_steps=accum_steps)
    step = compile_step(dataclasses.replace(config, mesh=mesh, train=train), jax.devices())
    params = sum(leaf.size for leaf in jax.tree.leaves(step.state.params))
    by_kind: dict[str, list[float]] = {}
    for one in Program(step.text).collectives():
        sums = by_kind.setdefault(one.kind, [0, 0.0])
        sums[0] += one.times
        sums[1] += one.times * one.bytes / 1e6
    return {
        "command": " ".join(sys.argv),
        **describe(),
        "mesh": dataclasses.asdict(mesh),
        "grad_accum_steps": accum_steps,
        "collectives": {
            kind: {"runs": n, "MB": round(mb, 2)} for kind, (n, mb) in by_kind.items()
        },
        "expected_MB": expected_bytes(mesh, params),
        "parameters": params,
    }


def efficiency(chip: Chip, devices: int, flops: float, gradient_bytes: float) -> float:
    """Share of the time that is spent computing, where nothing of an all-reduce is hidden.

    A ring moves 2(N-1)/N of the bytes. Beyond an island the sum is first taken within, so that
    each device has but its share to pass on over the slow links.
    """
    inside = min(devices, chip.island)
    seconds = 2 * (inside - 1) / inside * gradient_bytes / chip.links
    islands = -(-devices // chip.island)
    seconds += 2 * (islands - 1) / islands * gradient_bytes / inside / chip.beyond
    compute = flops / (REACHED * chip.flops)
    return compute / (compute + seconds)


def efficiencies(config: Config, rows: int, gradient_bytes: float) -> dict[str, list[float]]:
    """Of each kind of device, for each of `COUNTS`."""
    flops = step_flops(config, rows)
    return {
        name: [efficiency(CHIPS[chip], count, flops, gradient_bytes) for count in COUNTS]
        for chip, name in NAMES.items()
    }


def as_table(found: dict[str, list[float]], work: str) -> str:
    """Markdown: a row a kind of device, a column a number of them."""
    lines = [f"| {work} | " + " | ".join(map(str, COUNTS)) + " |"]
    lines.append("|---" * (1 + len(COUNTS)) + "|")
    for name, shares in found.items():
        lines.append(f"| {name} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    return "\n".join(lines) + "\n"


def draw(found: dict[str, list[float]], work: str, path: Path) -> None:
    """A line a kind of device."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, shares in found.items():
        axes.plot(COUNTS, [100 * share for share in shares], "o-", label=name)
    axes.set(xscale="log", xlabel="devices", ylabel="share of the time computing (%)")
    lowest = min(map(min, found.values()))
    axes.set_ylim(5 * math.floor(20 * lowest), 100)  # whole 5 %
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.minorticks_off()
    axes.set_title(f"Reckoned weak scaling, gradients not hidden: {work}")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Counts the collectives of a training step.")
    parser.add_argument("--config", required=True, help="as for albert_jax.train")
    parser.add_argument("--rows", type=int, default=32, help="rows a device, for the table")
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    args, overrides = parser.parse_known_args()
    config = load_config(args.config, overrides)
    describe_devices(f"cpu:{DEVICES}")
    reports = []
    for mesh, accum_steps in [*((mesh, 1) for mesh in MESHES), (MESHES[0], 4)]:
        reports.append(report(config, mesh, accum_steps))
        record(reports[-1], args.output)
    gradient_bytes = 1e6 * reports[0]["collectives"]["all-reduce"]["MB"]
    found = efficiencies(config, args.rows, gradient_bytes)
    work = f"{args.rows} rows of {config.data.seq_len} a device"
    print(as_table(found, work))
    if args.output:
        args.output.with_suffix(".md").write_text(as_table(found, work), "utf-8")
        draw(found, work, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
