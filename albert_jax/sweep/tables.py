"""Trains a table of the paper, row by row."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.analysis.masked_lm import held_out, summarize
from albert_jax.analysis.paper_tables import draw_table, write_table
from albert_jax.analysis.parameters import count_parameters
from albert_jax.config import Config
from albert_jax.config.load import load_config, run_file
from albert_jax.config.paper import SMALL, TableRow
from albert_jax.data.files import replace_json
from albert_jax.predict.load import load
from albert_jax.train import make_experiment
from albert_jax.train.loop import train

SCALES = ("paper", SMALL)
_RESULT = "result.json"  # in a row's run directory, once it is done
# The maximum number of held-out tokens to measure a model on: 4,096 rows of 512. Even if only one
# row in ten has a pair (rows of 32), accuracies of pairs are then accurate to half a percent.
_MOST_SLOTS = 2**21


def sweep(
    file: str,
    scale: str,
    output: Path,
    names: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Trains and measures the rows of a table, each in its own run directory.

    If started again, it resumes where it stopped. A failed row does not stop the others. After
    each row, `results.json`, `table.md` and `table.png` are rewritten.

    Args:
      file: a file in configs/paper, as accepted by `load_config`.
      scale: "paper", or "small" for 2 CPU cores.
      output: the parent directory; each row's run is in the folder of the row's name.
      names: the rows to run; by default all.
      overrides: `--config.a.b=value` for all rows.

    Returns:
      For each row, the result of `measure` or {"failed": why}.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a row does not exist, or several rows are the same experiment.
    """
    rows = read_rows(file)
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise ValueError(f"{file}: no row {unknown[0]!r}; choose from {', '.join(rows)}")
    chosen = {name: row for name, row in rows.items() if name in (names or rows)}
    configs = {
        name: _config_of(f"{file}:{_argument(name, scale)}", row, output, overrides)
        for name, row in chosen.items()
    }
    _check_distinct(configs)
    output.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in chosen:
        print(f"== {Path(file).stem}: {name}", flush=True)
        result = _attempt(configs[name], output / name)
        print(json.dumps(result), flush=True)
        results = _read_results(output) | {name: result}  # another process may do other rows
        ordered = {name: results[name] for name in rows if name in results}
        replace_json(output / "results.json", ordered)
        write_table(output / "table.md", title_of(file), scale, rows, ordered)
        draw_table(output / "table.png", title_of(file), scale, rows, ordered)
    return results


def read_rows(file: str) -> dict[str, TableRow]:
    """Returns the rows of a table's file.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file fails, or has no `ROWS`.
    """
    rows = run_file(file).get("ROWS")
    if not rows:
        raise ValueError(f"{file!r} is not a table: it defines no ROWS")
    if not isinstance(rows, dict) or not all(isinstance(row, TableRow) for row in rows.values()):
        raise ValueError(
            f"{file!r} is not a table: ROWS must be a dict of names and TableRow(...)"
        )
    return rows


def title_of(file: str) -> str:
    """Returns the first line of a table's docstring."""
    return (run_file(file)["__doc__"] or Path(file).stem).strip().splitlines()[0]


def measure(workdir: Path, config: Config) -> dict[str, float]:
    """Returns a finished run's metrics on held-out rows.

    `mlm_loss` (nats) and `mlm_accuracy` are on examples made like the training examples;
    `nsp_accuracy` and `sop_accuracy` are on pairs of either kind, regardless of the run's
    objective.

    Raises:
      FloatingPointError: if the loss is not finite.
    """
    model, most = load(workdir), _MOST_SLOTS // config.data.seq_len
    own = config.data.sentence_objective
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


def _argument(name: str, scale: str) -> str:
    return name if scale == "paper" else f"{name},{scale}"


def _config_of(
    path: str, row: TableRow, output: Path, overrides: Sequence[str]
) -> Config | ValueError:
    """Returns a row's settings, or the error: an invalid row must not stop the others."""
    start = [f"--config.init_from={output / row.start}"] if row.start else []
    try:
        return load_config(path, [*start, *overrides])
    except ValueError as error:
        return error


def _check_distinct(configs: Mapping[str, Config | ValueError]) -> None:
    seen: dict[Config, str] = {}
    for name, config in configs.items():
        if isinstance(config, ValueError):
            continue
        same = seen.setdefault(dataclasses.replace(config, init_from=""), name)
        if same != name:
            raise ValueError(
                f"rows {same!r} and {name!r} come to the same settings; an override has taken "
                "away what they differ in"
            )


def _attempt(config: Config | ValueError, workdir: Path) -> dict[str, Any]:
    """Trains and measures a row, or returns the reason why that failed."""
    try:
        if isinstance(config, ValueError):
            raise config
        experiment = make_experiment(config, workdir)  # raises if the folder has other settings
        result = workdir / _RESULT
        if not result.is_file():
            train(experiment)
            replace_json(result, measure(workdir, config))
        return json.loads(result.read_text("utf-8"))
    except (ArithmeticError, OSError, RuntimeError, ValueError) as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def _read_results(output: Path) -> dict[str, dict[str, Any]]:
    path = output / "results.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
