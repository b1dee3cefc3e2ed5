"""An estimate as a table for a terminal, and as JSON."""

import dataclasses
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from albert_jax.config import TrainConfig
from albert_jax.model.sharding import mesh_sizes
from albert_jax.train.chips import GIB, Chip
from albert_jax.train.costs import Estimate, Time, room
from albert_jax.train.fitting import Fit

_LEGEND = """
compiler: XLA's own estimate of each instruction, which counts what is bound by memory about 2.5
times too dear. roofline: the larger of FLOPs at 0.9 of peak and bytes at the memory's rate. Both
have attention's kernels at the share of peak that their schedule has, and links at the makers'
rates with nothing hidden. Shares are of model FLOPs, for rows that one text fills. Nothing was
measured."""


def as_text(
    phases: Sequence[Estimate], fits: Sequence[Fit], chip: Chip | None, num_devices: int
) -> str:
    """Returns what `albert_jax.estimate` prints."""
    lines = [line for phase in phases for line in _phase_lines(phase, chip, num_devices)]
    if phases and phases[0].times:
        lines += _run_lines(phases, num_devices)
    if not phases:
        lines.append("It does not fit.")
    for fit in fits:
        told = f", {_shares(fit.estimate, chip)} of peak" if chip and fit.estimate.times else ""
        lines.append(
            f"fits      {fit.rows} rows a device at once with remat {fit.remat}{told}: "
            f"{fit.overrides}"
        )
    has_times = any(one.times for one in (*phases, *(fit.estimate for fit in fits)))
    return "\n".join(lines) + (_LEGEND if has_times else "")


def _phase_lines(phase: Estimate, chip: Chip | None, num_devices: int) -> list[str]:
    train, memory = phase.config.train, phase.memory
    sizes = mesh_sizes(phase.config.mesh, num_devices)
    rows = train.batch_size // train.grad_accum_steps // (sizes["data"] * sizes["fsdp"])
    mesh = ", ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "one device"
    limit = f" of {room(chip) / GIB:.1f}" if chip else ""
    unfit = "" if phase.fits is not False else " — does not fit"
    parts = {"parameters": memory.parameters, "optimizer": memory.optimizer}
    parts |= {"gradients": memory.gradients, "activations": memory.activations}
    told = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
    largest = (
        f"{size / GIB:.2f} GiB {array} {operation} {line}".rstrip()
        for size, array, operation, line in memory.largest
    )
    lines = [
        f"step      {train.batch_size} rows of {phase.config.data.seq_len} on {mesh}",
        f"          {train.grad_accum_steps} × {rows} a device; {_how(train)}",
        f"memory    {memory.total / GIB:.2f}{limit} GiB a device{unfit}: {told}",
        "largest   " + "\n          ".join(largest),
    ]
    for link in phase.links:
        where = "in a loop" if link["in_loop"] else "once a step"
        lines.append(
            f"links     {link['runs']} {link['kind']} over {link['axes']}, {where}: "
            f"{link['bytes'] / 1e6:.2f} MB {link['dtype']} in all"
        )
    return lines + (_time_lines(phase, chip) if chip else [])


def _how(train: TrainConfig) -> str:
    turn = "one layer a turn" if train.unroll == 1 else f"{train.unroll} layers a turn"
    return f"{train.dtype}, remat {train.remat}, {turn}"


def _time_lines(phase: Estimate, chip: Chip) -> list[str]:
    known = phase.times
    if not known:
        return ["time      not estimated in float32; try --config.train.dtype=bfloat16"]
    lines = [
        "time      "
        + "; ".join(
            f"{name} {1e3 * time.total:.1f} ms, {share(phase, time, chip):.1%} of peak"
            for name, time in known.items()
        )
    ]
    parts = dict.fromkeys(part for time in known.values() for part in time.parts)
    for part in parts:
        shares = "".join(
            f"{time.parts.get(part, 0) / time.total:>9.1%} {name}" for name, time in known.items()
        )
        lines.append(f"          {part:<16}{shares}")
    return lines


def _run_lines(phases: Sequence[Estimate], num_devices: int) -> list[str]:
    found = hours(phases)
    told = "; ".join(
        f"{name} {value:.1f} hours, {value * num_devices:.0f} device-hours"
        for name, value in found.items()
    )
    seconds = sum(phase.compile_seconds for phase in phases)
    with_versions = ", ".join(f"{name} {version}" for name, version in versions().items())
    return [
        f"run       {sum(phase.steps for phase in phases)} steps: {told}",
        f"compiled  in {seconds:.0f} s with {with_versions}",
    ]


def share(phase: Estimate, time: Time, chip: Chip) -> float:
    """Returns the model FLOPs over what the chip could do in that time."""
    return phase.flops / time.total / chip.flops


def _shares(phase: Estimate, chip: Chip) -> str:
    return ", ".join(
        f"{share(phase, time, chip):.1%} {name}" for name, time in phase.times.items()
    )


def hours(phases: Sequence[Estimate]) -> dict[str, float]:
    """Returns the hours of a whole run after each way of counting."""
    names = phases[0].times
    return {name: sum(p.steps * p.times[name].total for p in phases) / 3600 for name in names}


def versions() -> dict[str, str]:
    """Returns the versions of jax and of the compilers that are installed."""
    found = {"jax": metadata.version("jax")}
    for name in ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_json(
    phases: Sequence[Estimate],
    fits: Sequence[Fit],
    config: str,
    devices: str,
    chip: Chip | None,
    num_devices: int,
) -> dict[str, Any]:
    """Returns everything that is printed, in bytes and seconds."""
    return {
        "config": config,
        "devices": devices,
        "num_devices": num_devices,
        "versions": versions(),
        "phases": [_phase_json(phase, chip) for phase in phases],
        "hours": hours(phases) if phases and chip else {},
        "fits": [
            {
                "remat": fit.remat,
                "fsdp": fit.fsdp,
                "rows": fit.rows,
                "overrides": fit.overrides,
                **_phase_json(fit.estimate, chip),
            }
            for fit in fits
        ],
    }


def _phase_json(phase: Estimate, chip: Chip | None) -> dict[str, Any]:
    return {
        "seq_len": phase.config.data.seq_len,
        "steps": phase.steps,
        "train": dataclasses.asdict(phase.config.train),
        "mesh": dataclasses.asdict(phase.config.mesh),
        "fits": phase.fits,
        "memory": {
            **phase.memory._asdict(),
            "room": room(chip) if chip else None,
            "largest": [
                dict(zip(("bytes", "array", "operation", "line"), one, strict=True))
                for one in phase.memory.largest
            ],
        },
        "links": phase.links,
        "model_flops": phase.flops,
        "times": {
            name: {
                "seconds": time.total,
                "share_of_peak": share(phase, time, chip) if chip else None,
                "parts": dict(time.parts),
            }
            for name, time in phase.times.items()
        },
        "compile_seconds": phase.compile_seconds,
    }
