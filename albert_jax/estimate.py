"""The command `python -m albert_jax.estimate`: what a run needs, before it has a machine.

Compiles the run's training step for devices that need not be here, and reads the program: whether
it fits, what it communicates, how long a step should take and where that goes.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from albert_jax.config import Config
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import load_config, user_path
from albert_jax.config.phases import phases_of
from albert_jax.model.sharding import mesh_sizes
from albert_jax.tasks.registry import PRETRAINING
from albert_jax.train.ahead import DoesNotFitError
from albert_jax.train.chips import GIB, Chip, describe_devices
from albert_jax.train.costs import Estimate, Time, estimate_step, room
from albert_jax.train.fitting import REMATS, Fit, largest_fit, settings_that_fit

_LEGEND = """
compiler: XLA's own estimate of each instruction, which counts what is bound by memory about 2.5
times too dear. roofline: the larger of FLOPs at 0.9 of peak and bytes at the memory's rate. Both
have attention's kernels at the share of peak that their schedule has, and links at the makers'
rates with nothing hidden. Shares are of model FLOPs, for rows that one text fills. Nothing was
measured."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: 0 if the run fits its devices."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.estimate",
        description="Says what a pretraining run needs on accelerators that need not be here.",
        epilog="Settings are changed as for training: --config.train.batch_size=1024",
    )
    parser.add_argument("--config", required=True, help="a config file, as for training")
    parser.add_argument(
        "--devices",
        required=True,
        help="a chip (v4, v5e, v5p, v6e, a100-40, a100-80, h100, h200, b200, cpu) and how many of "
        "it, or a TPU slice: h100:8, v5p:64, v5p:4x4x4",
    )
    parser.add_argument(
        "--rows", action="store_true", help="also find the most rows a device for each remat"
    )
    parser.add_argument("--json", type=user_path, help="where to write everything, as JSON")
    parser.add_argument("--hlo", type=user_path, help="where to write the compiled program")
    args, overrides = parser.parse_known_args(argv)
    try:
        config = load_config(args.config, overrides)
        chip, devices = describe_devices(args.devices)
        phases, fits = _estimate(config, chip, devices, args.rows)
        print(_as_text(phases, fits, chip, len(devices)))
        if args.json:
            found = as_json(phases, fits, args.config, args.devices, chip, len(devices))
            args.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
        if args.hlo and phases:
            args.hlo.write_text(phases[-1].text, "utf-8")
    except USER_ERRORS as error:
        return fail(error)
    return 0 if phases and all(phase.fits is not False for phase in phases) else 1


def _estimate(
    config: Config, chip: Chip | None, devices: Sequence[Any], all_remats: bool
) -> tuple[list[Estimate], list[Fit]]:
    """Returns what each phase costs (nothing if one does not fit), and settings that fit.

    Such settings are looked for if there is need, or for each remat if `all_remats`.

    Raises:
      ValueError: if it is no pretraining run, or does not go together with the devices.
    """
    if config.task.name != PRETRAINING:
        raise ValueError(
            f"config.task.name={config.task.name!r}: only pretraining is estimated; choose a "
            "config such as configs/base.py"
        )
    runs = []
    for phase in phases_of(config.data, config.train):
        train = dataclasses.replace(config.train, batch_size=phase.batch_size)
        runs.append((dataclasses.replace(config, data=phase.data, train=train), phase.num_steps))
    phases: list[Estimate] = []
    try:
        for own, steps in runs:
            _say(f"compiling {own.train.batch_size} rows of {own.data.seq_len} a step")
            phases.append(estimate_step(own, steps, chip, devices))
    except DoesNotFitError as error:
        phases = []
        _say(str(error))
    if chip is None:
        return phases, []
    longest = *runs[-1], chip, devices
    if all_remats:
        tried = [largest_fit(*longest, remat, _say) for remat in REMATS]
        return phases, [fit for fit in tried if fit]
    if phases and all(phase.fits for phase in phases):
        return phases, []
    fit = settings_that_fit(*longest, _say)
    return phases, [fit] if fit else []


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _as_text(
    phases: Sequence[Estimate], fits: Sequence[Fit], chip: Chip | None, num_devices: int
) -> str:
    lines = [line for phase in phases for line in _phase_lines(phase, chip, num_devices)]
    if phases and chip:
        lines += _run_lines(phases, num_devices)
    if not phases:
        lines.append("It does not fit.")
    for fit in fits:
        share = _shares(fit.estimate, chip) if chip else ""
        lines.append(
            f"fits      {fit.rows} rows a device at once with remat {fit.remat}: {share} of peak: "
            f"{fit.overrides}"
        )
    if not fits and not (phases and all(phase.fits is not False for phase in phases)):
        lines.append("No remat, accumulation or sharding of the weights makes it fit; take more")
        lines.append("devices, a chip with more memory, or mesh.tensor.")
    return "\n".join(lines) + (_LEGEND if chip and (phases or fits) else "")


def _phase_lines(phase: Estimate, chip: Chip | None, num_devices: int) -> list[str]:
    train, memory = phase.config.train, phase.memory
    sizes = mesh_sizes(phase.config.mesh, num_devices)
    rows = train.batch_size // train.grad_accum_steps // (sizes["data"] * sizes["fsdp"])
    mesh = ", ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 1) or "one device"
    limit = f" of {room(chip) / GIB:.1f}" if chip else ""
    unfit = "" if phase.fits is not False else " — does not fit"
    lines = [
        f"step      {train.batch_size} rows of {phase.config.data.seq_len} on {mesh}: "
        f"{train.grad_accum_steps} × {rows} a device; remat {train.remat}, "
        f"{train.unroll} layers a turn, {train.dtype}",
        f"memory    {memory.total / GIB:.2f}{limit} GiB a device{unfit}: "
        f"parameters {memory.parameters / GIB:.2f}, optimizer {memory.optimizer / GIB:.2f}, "
        f"gradients {memory.gradients / GIB:.2f}, activations {memory.activations / GIB:.2f}",
        "largest   "
        + "\n          ".join(
            f"{size / GIB:.2f} GiB {array} {operation} {line}".rstrip()
            for size, array, operation, line in memory.largest
        ),
    ]
    for link in phase.links:
        where = "in a loop" if link["in_loop"] else "once a step"
        lines.append(
            f"links     {link['runs']} {link['kind']} over {link['axes']}, {where}: "
            f"{link['bytes'] / 1e6:.2f} MB {link['dtype']} in all"
        )
    return lines + (_time_lines(phase, chip) if chip else [])


def _time_lines(phase: Estimate, chip: Chip) -> list[str]:
    times = {"compiler": phase.compiler, "roofline": phase.roofline}
    known = {name: time for name, time in times.items() if time}
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
    return [
        f"run       {sum(phase.steps for phase in phases)} steps: {told}",
        f"compiled  in {seconds:.0f} s with {', '.join(f'{k} {v}' for k, v in versions().items())}",
    ]


def share(phase: Estimate, time: Time, chip: Chip) -> float:
    """Returns the model FLOPs over what the chip could do in that time."""
    return phase.flops / time.total / chip.flops


def _shares(phase: Estimate, chip: Chip) -> str:
    times = {"compiler": phase.compiler, "roofline": phase.roofline}
    return ", ".join(
        f"{share(phase, time, chip):.1%} {name}" for name, time in times.items() if time
    )


def hours(phases: Sequence[Estimate]) -> dict[str, float]:
    """Returns the hours of a whole run after each way of counting."""
    found = {"roofline": sum(p.steps * p.roofline.total for p in phases if p.roofline) / 3600}
    if all(phase.compiler for phase in phases):
        seconds = sum(phase.steps * phase.compiler.total for phase in phases if phase.compiler)
        found = {"compiler": seconds / 3600, **found}
    return found


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
        "hours": hours(phases) if phases and chip else None,
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
    times: Mapping[str, Time | None] = {"compiler": phase.compiler, "roofline": phase.roofline}
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
            for name, time in times.items()
            if time
        },
        "compile_seconds": phase.compile_seconds,
    }


if __name__ == "__main__":
    sys.exit(main())
