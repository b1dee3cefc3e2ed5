"""The command `python -m albert_jax.sweep`: many runs, resumed where they stopped."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import find_config, run_file, user_path
from albert_jax.sweep.search import search
from albert_jax.sweep.tables import SCALES, sweep
from albert_jax.sweep.trials import parse_settings
from albert_jax.train.preemption import EXIT_CODE


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code, 1 if a run failed."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.sweep",
        description="Trains the rows of a table of the paper, or a config with every combination "
        "of some settings and seeds; run again to resume.",
        epilog="Override settings of all runs with --config.GROUP.KEY=VALUE.",
    )
    parser.add_argument("file", help="paper/tableN, or a config such as finetune/rte")
    parser.add_argument("--output", type=user_path, help="default: runs/NAME")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (default: 1)")
    table = parser.add_argument_group("tables")
    table.add_argument("--scale", choices=SCALES, default="paper", help="default: paper")
    table.add_argument(
        "--row", action="append", default=[], help="run only this row; may be repeated"
    )
    config = parser.add_argument_group("configs")
    config.add_argument(
        "--try",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=A,B",
        help="values of a setting, such as optimizer.learning_rate=1e-5,3e-5; may be repeated",
    )
    config.add_argument(
        "--samples", type=int, help="try only so many combinations, drawn at random"
    )
    config.add_argument("--seeds", type=int, default=3, help="runs of each (default: 3)")
    args, overrides = parser.parse_known_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # runs save their state first
    try:
        if "ROWS" in run_file(find_config(args.file.partition(":")[0])):
            if args.settings or args.samples:
                raise ValueError("--try and --samples are for configs, not for the paper's tables")
            return _table(args, overrides)
        if args.row or args.scale != "paper":
            raise ValueError("--row and --scale are for the paper's tables, not for configs")
        return _search(args, overrides)
    except USER_ERRORS as error:
        return fail(error)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return EXIT_CODE


def _table(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    name = Path(args.file).stem + ("" if args.scale == "paper" else f"-{args.scale}")
    output = args.output or Path("runs") / name
    results = sweep(args.file, args.scale, output, args.row, args.jobs, overrides)
    failed = [name for name, result in results.items() if "failed" in result]
    print(f"{output}/table.md: {len(results)} rows, {len(failed)} failed {failed or ''}".strip())
    return int(bool(failed))


def _search(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    output = args.output or Path("runs") / Path(args.file).stem
    settings = parse_settings(args.settings)
    results = search(args.file, output, settings, args.samples, args.seeds, args.jobs, overrides)
    failed = sum("failed" in run for runs in results.values() for run in runs.values())
    print((output / "table.md").read_text("utf-8"))
    print(f"{output}/table.md: {len(results)} settings, {failed} runs failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
