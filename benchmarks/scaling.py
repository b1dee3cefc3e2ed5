"""What a sharded training step communicates, and the estimated cost on 8 to 512 devices.

    python benchmarks/scaling.py --config configs/base.py --config.data.path=data/rows

Compiles the step for several meshes of simulated devices and reads every collective out of the
compiled program: how often it runs (counting loop iterations) and its bytes, next to the bytes
that the sharding should need. From the bytes of the mesh that splits only the batch, and the
vendors' figures for speed and bandwidth, it estimates the fraction of time that 8 to 512 devices
would compute, as a table and a figure; none of that is measured.

Prints a JSON object per mesh and appends it to --output, with the table and figure next to it.
"""

import argparse
import dataclasses
import itertools
import math
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DEVICES = 8
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"

import jax
import matplotlib.pyplot as plt
from machine import describe, record

from albert_jax.config import Config, MeshConfig
from albert_jax.config.load import load_config
from albert_jax.model.flops import model_flops
from albert_jax.train import make_experiment

MESHES = (
    MeshConfig(data=8),
    MeshConfig(data=1, fsdp=8),
    MeshConfig(data=2, fsdp=4),
    MeshConfig(data=4, tensor=2),
)
COUNTS = (8, 16, 32, 64, 128, 256, 512)
_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}


class Machine(NamedTuple):
    """Devices of one kind: FLOP/s that a step reaches, and bytes/s a device to the others.

    `island` devices share the fast links; beyond, each has the slow ones.
    """

    name: str
    flops: float
    island: int
    fast: float
    slow: float


# Source: the makers' data sheets (dense bfloat16; links in one direction). A step is taken to
# reach half of the peak.
MACHINES = (
    Machine("H100 SXM, NVLink, InfiniBand 400", 0.5 * 989e12, 8, 450e9, 50e9),
    Machine("TPU v5p", 0.5 * 459e12, 8960, 300e9, 300e9),
    Machine("TPU v5e", 0.5 * 197e12, 256, 100e9, 25e9),
)


class Collective(NamedTuple):
    """An instruction: its kind, the bytes that a device holds of its result, how often it runs."""

    kind: str
    bytes: int
    times: int


def collectives(program: str) -> Iterator[Collective]:
    """Every collective of a compiled program."""
    times = turns(program)
    for name, lines in computations(program):
        for line in lines:
            match = re.search(rf" = (.*?) ({_KINDS})(-start)?\(", line)
            if match:
                yield Collective(match[2], size_of(match[1], bool(match[3])), times[name])


def computations(program: str) -> Iterator[tuple[str, list[str]]]:
    """(name, lines) of each computation."""
    for block in re.findall(r"^(?:ENTRY )?%?[\w.\-]+ \(.*?^}", program, re.M | re.S):
        first, *lines = block.splitlines()
        yield re.sub(r"^(ENTRY )?%?", "", first).split(" ")[0], lines


def turns(program: str) -> Counter[str]:
    """How often each computation runs in a step."""
    callers: dict[str, tuple[str, int]] = {}
    for name, lines in computations(program):
        for line in lines:
            count = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            for _, callee in re.findall(r"(body|to_apply|calls)=%?([\w.\-]+)", line):
                is_body = f"body=%{callee}" in line or f"body={callee}" in line
                callers[callee] = name, int(count[1]) if count and is_body else 1
    found: Counter[str] = Counter()
    for name, _ in computations(program):
        found[name], at = 1, name
        while at in callers:
            at, factor = callers[at]
            found[name] *= factor
    return found


def size_of(shapes: str, is_start: bool) -> int:
    """Bytes of an instruction's result; the start of an asynchronous one also names its input."""
    sizes = [
        _BYTES[dtype] * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        if dtype in _BYTES
    ]
    return sum(sizes) // 2 if is_start else sum(sizes)


def expected_bytes(mesh: MeshConfig, params: int) -> str:
    """What the sharding should take, of float32 parameters and gradients."""
    gradients = 4 * params
    if mesh.tensor > 1:
        return f"{gradients / mesh.tensor / 1e6:.1f} of gradients, and activations twice a block"
    weights = ", and the weights that are split, once" if mesh.fsdp > 1 else ""
    return f"{gradients / 1e6:.1f} of gradients, once{weights}"


def compiled(config: Config) -> tuple[str, int]:
    """The program of a step, and the number of parameters."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(config, Path(folder) / "run")
        with jax.set_mesh(experiment.mesh):
            stream = experiment.train_batches(0)
            (batch,) = itertools.islice(stream, 1)
            stream.close()
            state = experiment.spec.abstract_state
            step = experiment.train_step.lower(state, batch, jax.random.key(0)).compile()
    return step.as_text(), sum(leaf.size for leaf in jax.tree.leaves(state.params))


def report(config: Config, mesh: MeshConfig, accum_steps: int) -> dict[str, Any]:
    """What the step of a mesh says over the wires."""
    train = dataclasses.replace(config.train, grad_accum_steps=accum_steps)
    program, params = compiled(dataclasses.replace(config, mesh=mesh, train=train))
    by_kind: dict[str, list[float]] = {}
    for one in collectives(program):
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


def efficiency(machine: Machine, devices: int, flops: float, gradient_bytes: float) -> float:
    """Share of the time that is spent computing, where nothing of an all-reduce is hidden.

    A ring moves 2(N-1)/N of the bytes. Beyond an island the sum is first taken within, so that
    each device has but its share to pass on over the slow links.
    """
    inside = min(devices, machine.island)
    seconds = 2 * (inside - 1) / inside * gradient_bytes / machine.fast
    islands = -(-devices // machine.island)
    seconds += 2 * (islands - 1) / islands * gradient_bytes / inside / machine.slow
    compute = flops / machine.flops
    return compute / (compute + seconds)


def step_flops(config: Config, rows: int) -> float:
    """Model FLOPs of one device's rows, full of one chunk each."""
    tokens = rows * config.data.seq_len
    predictions = config.data.mask_rate * tokens
    return model_flops(
        config.model, tokens, tokens * config.data.seq_len, predictions, chunks=rows
    )


def efficiencies(config: Config, rows: int, gradient_bytes: float) -> dict[str, list[float]]:
    """Of each kind of device, for each of `COUNTS`."""
    flops = step_flops(config, rows)
    return {
        machine.name: [efficiency(machine, count, flops, gradient_bytes) for count in COUNTS]
        for machine in MACHINES
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
