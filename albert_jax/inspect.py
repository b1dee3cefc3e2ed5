"""The command `python -m albert_jax.inspect`: shows the batch of a training step."""

import argparse
import os
import sys
from collections.abc import Sequence

from albert_jax.analysis.batches import RunView, report
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import user_path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.inspect",
        description="Shows the rows of a step's batch: documents, pairs of segments, masks.",
    )
    parser.add_argument("--workdir", required=True, type=user_path, help="a pretraining run")
    parser.add_argument(
        "--step", type=int, default=1, help="the step, from 1, as in metrics.jsonl"
    )
    parser.add_argument("--row", type=int, action="append", help="a place in the batch, from 0")
    parser.add_argument("--document", type=int, help="skip to the next step with this document")
    parser.add_argument(
        "--data", type=os.path.expanduser, help="the run's rows, if they have moved"
    )
    args = parser.parse_args(argv)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    try:
        run = RunView(args.workdir, args.data)
        step = args.step
        # Raises for an invalid step before rows are searched.
        places = args.row or range(run.phase_of(step).batch_size)
        if args.document is not None:
            step, places = run.next_step(args.document, step)
            print(f"document {args.document} next occurs in step {step}")
            if step > run.config.train.num_steps:
                return 0
        for line in report(run, step, places, colour=colour):
            print(line)
    except USER_ERRORS as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
