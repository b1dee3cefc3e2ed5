"""A table of the paper: a run for each row, and its results beside the paper's."""

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_jax.analysis.paper_tables import draw_table, write_table
from albert_jax.config import Config
from albert_jax.config.load import load_config, run_file
from albert_jax.config.paper import SMALL, TableRow
from albert_jax.data.files import read_object, replace_json
from albert_jax.sweep.processes import RESULT, Run, finished

SCALES = ("paper", SMALL)


def sweep(
    file: str,
    scale: str,
    output: Path,
    names: Sequence[str] = (),
    jobs: int = 1,
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
      jobs: rows at once; on Linux, each has its share of the CPU cores.
      overrides: `--config.a.b=value` for all rows.

    Returns:
      For each row, the result of `sweep.run.measure` or {"failed": why}.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a row does not exist, has other settings than before, or is the same
        experiment as another.
    """
    rows = read_rows(file)
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise ValueError(f"{file}: no row {unknown[0]!r}; choose from {', '.join(rows)}")
    chosen = {name: row for name, row in rows.items() if name in (names or rows)}
    words = {name: _words(rows[name], output, overrides) for name in chosen}
    paths = {name: f"{file}:{name}" + ("" if scale == "paper" else f",{scale}") for name in chosen}
    configs = _valid_configs(paths, words)
    _check_distinct(configs)
    runs = [
        Run(name, output / name, ["--measure", "--config", paths[name], *words[name]], start)
        for name, row in chosen.items()
        for start in [output / row.start if row.start else None]
    ]
    ordered = {}
    for run, failure in finished(runs, jobs, output, configs):
        result = {"failed": failure} if failure else read_object(run.workdir / RESULT)
        print(json.dumps({run.name: result}), flush=True)
        results = _read_results(output) | {run.name: result}  # another process may do other rows
        ordered = {name: results[name] for name in rows if name in results}
        replace_json(output / "results.json", ordered)
        write_table(output / "table.md", title_of(file), scale, rows, ordered)
        draw_table(output / "table.png", title_of(file), scale, rows, ordered)
    return ordered


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


def _words(row: TableRow, output: Path, overrides: Sequence[str]) -> list[str]:
    start = [f"--config.init_from={output / row.start}"] if row.start else []
    return [*start, *overrides]


def _valid_configs(
    paths: Mapping[str, str], words: Mapping[str, Sequence[str]]
) -> dict[str, Config]:
    """Returns the settings of rows; invalid ones, which their runs will report, are left out."""
    configs = {}
    for name, path in paths.items():
        with contextlib.suppress(ValueError):
            configs[name] = load_config(path, words[name])
    return configs


def _check_distinct(configs: Mapping[str, Config]) -> None:
    seen: dict[Config, str] = {}
    for name, config in configs.items():
        same = seen.setdefault(dataclasses.replace(config, init_from=""), name)
        if same != name:
            raise ValueError(
                f"rows {same!r} and {name!r} come to the same settings; an override has taken "
                "away what they differ in"
            )


def _read_results(output: Path) -> dict[str, dict[str, Any]]:
    path = output / "results.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
