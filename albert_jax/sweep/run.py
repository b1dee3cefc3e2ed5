"""The process of one run in a sweep: trains, measures, and ends if the sweep has ended."""

import argparse
import dataclasses
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from albert_jax.analysis.masked_lm import held_out, summarize
from albert_jax.analysis.parameters import count_parameters
from albert_jax.checkpoints.run_dir import read_run
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.data.files import replace_json
from albert_jax.predict.load import load
from albert_jax.sweep.processes import RESULT
from albert_jax.train.__main__ import main as train
from albert_jax.train.failures import hide_late_writes

# The maximum number of held-out tokens to measure a model on: 4,096 rows of 512. Even if only one
# row in ten has a pair (rows of 32), accuracies of pairs are then accurate to half a percent.
_MOST_SLOTS = 2**21


def measure(workdir: Path) -> dict[str, float]:
    """Returns a finished pretraining run's metrics on held-out rows.

    `mlm_loss` (nats) and `mlm_accuracy` are on examples made like the training examples;
    `nsp_accuracy` and `sop_accuracy` are on pairs of either kind, regardless of the run's
    objective.

    Raises:
      FileNotFoundError: if there is no run or no data.
      FloatingPointError: if the loss is not finite.
    """
    config, model = read_run(workdir).config, load(workdir)
    most, own = _MOST_SLOTS // config.data.seq_len, config.data.sentence_objective
    found = {}
    for objective in dict.fromkeys((own, "nsp", "sop")):  # includes its own only once
        data = dataclasses.replace(config.data, sentence_objective=objective)
        found[objective] = summarize(held_out(model, data, most), objective)
    if not math.isfinite(found[own]["mlm_loss"]):
        raise FloatingPointError(f"mlm_loss is {found[own]['mlm_loss']}")
    return {
        "parameters": count_parameters(model.params),
        "mlm_loss": found[own]["mlm_loss"],
        "mlm_accuracy": found[own]["mlm_accuracy"],
        "nsp_accuracy": found["nsp"]["nsp_accuracy"],
        "sop_accuracy": found["sop"]["sop_accuracy"],
    }


def _stop_after(parent: int) -> None:
    """Asks this process to save and stop once its parent is gone, however that ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Trains as `albert_jax.train` does, then measures; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m albert_jax.sweep.run", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process id of the sweep")
    parser.add_argument("--measure", action="store_true", help=f"write {RESULT}")
    parser.add_argument("--workdir", type=Path, required=True, help="the run directory")
    args, words = parser.parse_known_args(argv)
    threading.Thread(target=_stop_after, args=(args.parent,), daemon=True).start()
    code = train([*words, "--workdir", str(args.workdir)])
    if code == 0 and args.measure:
        try:
            replace_json(args.workdir / RESULT, measure(args.workdir))
        except (*USER_ERRORS, ArithmeticError) as error:
            return fail(error)
    return code


if __name__ == "__main__":
    hide_late_writes()
    sys.exit(main())
