"""The command `python -m albert_jax.estimate`: what a run needs, before it has a machine.

Compiles the run's training step for devices that need not be here, and reads the program: whether
it fits, what it communicates, how long a step should take and where that goes.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from albert_jax.config import Config
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import load_config, user_path
from albert_jax.config.phases import phases_of
from albert_jax.tasks.registry import PRETRAINING
from albert_jax.train.ahead import DoesNotFitError
from albert_jax.train.chips import Chip, describe_devices
from albert_jax.train.costs import Estimate, estimate_step
from albert_jax.train.estimate_report import as_json, as_text
from albert_jax.train.fitting import REMATS, Fit, largest_fit, settings_that_fit


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
    parser.add_argument(
        "--only", action="store_true", help="look for no other settings if it does not fit"
    )
    parser.add_argument("--json", type=user_path, help="where to write everything, as JSON")
    parser.add_argument("--hlo", type=user_path, help="where to write the compiled program")
    # So that the arguments of a training command can be given as they are.
    parser.add_argument("--workdir", help=argparse.SUPPRESS)
    args, overrides = parser.parse_known_args(argv)
    try:
        for name, path in (("--json", args.json), ("--hlo", args.hlo)):
            if path and not path.parent.is_dir():
                raise FileNotFoundError(f"{name} {str(path)!r}: there is no folder {path.parent}")
        config = load_config(args.config, overrides)
        chip, devices = describe_devices(args.devices)
        phases, fits = _estimate(config, chip, devices, args.rows, args.only)
        print(as_text(phases, fits, chip, len(devices)))
        if args.json:
            found = as_json(phases, fits, args.config, args.devices, chip, len(devices))
            args.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")
        if args.hlo and phases:
            args.hlo.write_text(phases[-1].text, "utf-8")
    except USER_ERRORS as error:
        return fail(error)
    return 0 if phases and all(phase.fits is not False for phase in phases) else 1


def _estimate(
    config: Config, chip: Chip | None, devices: Sequence[Any], all_remats: bool, only: bool
) -> tuple[list[Estimate], list[Fit]]:
    """Returns what each phase costs (nothing if one does not fit), and settings that fit.

    Such settings are looked for if there is need, or for each remat if `all_remats`; not if
    `only` this config counts.

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
    too_large: list[tuple[Config, int]] = []
    for own, steps in runs:
        _say(f"compiling {own.train.batch_size} rows of {own.data.seq_len} a step")
        try:
            phases.append(estimate_step(own, steps, chip, devices))
        except DoesNotFitError as error:
            _say(f"does not fit: {error}")
            phases, too_large = [], [(own, steps)]
            break
    if chip is None or only:
        return phases, []
    if all_remats:
        longest, steps = runs[-1]
        tried = [largest_fit(longest, steps, chip, devices, remat, _say) for remat in REMATS]
        return phases, [fit for fit in tried if fit]
    too_large += [run for run, phase in zip(runs, phases, strict=False) if not phase.fits]
    if not too_large:
        return phases, []
    unfit, steps = too_large[0]
    fit = settings_that_fit(unfit, steps, chip, devices, _say)
    if fit is None:
        _say(
            "no remat, accumulation or sharding of the weights makes it fit; take more devices, "
            "a chip with more memory, or mesh.tensor"
        )
    return phases, [fit] if fit else []


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
