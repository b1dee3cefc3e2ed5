"""Sweeps go on where they were, survive a failed row, and say what came out."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from support.tiny_runs import tiny_config, tiny_run, tiny_settings

import albert_jax
import albert_jax.sweep.processes as processes
from albert_jax.analysis.paper_tables import draw_table, write_table
from albert_jax.checkpoints.run_dir import locked
from albert_jax.config import Config, config_from_dict
from albert_jax.config.paper import Scores, TableRow
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.evaluate import evaluate
from albert_jax.sweep.__main__ import main
from albert_jax.sweep.tables import sweep
from albert_jax.train.initialization import read_start

pytestmark = pytest.mark.slow

TABLE = '''"""Table 0: what a test needs."""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow

SCORES = Scores((1.0, 1.0), (1.0, 1.0), 1.0, 1.0, 1.0, 1.0, (54.9, 52.4, 53.3))
ROWS = {{
    "shallow": TableRow("", {{}}, SCORES, 1),
    "broken": TableRow("", {{}}, SCORES, 1),
    "deep": TableRow("", {{}}, SCORES, 1, start="shallow"),
    "after-broken": TableRow("", {{}}, SCORES, 1, start="broken"),
}}
VALUES = {values!r}


def get_config(argument):
    config = ConfigDict(VALUES)
    config.model.num_hidden_layers = {{"shallow": 1, "deep": 2}}.get(argument, 3)
    if argument == "broken":
        config.model.vocab_size += 1  # not that of the rows
    return config
'''


@pytest.fixture(scope="module")
def table(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("table") / "table0.py"
    train = {"num_steps": 6, "eval_every": 3, "checkpoint_every": 3}
    path.write_text(TABLE.format(values=tiny_settings(rows, train=train)))
    return str(path)


@pytest.fixture(scope="module")
def done(table: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("sweep") / "table0"
    return output, sweep(table, "paper", output, jobs=2)


def test_a_failed_row_does_not_stop_the_rest(done):
    output, results = done
    assert list(results) == ["shallow", "broken", "deep", "after-broken"]
    assert "vocab_size=61" in results["broken"]["failed"]
    assert "there is no model at" in results["after-broken"]["failed"]
    text = (output / "table.md").read_text()
    assert text.startswith("# Table 0: what a test needs.\n")
    assert json.loads((output / "results.json").read_text()) == results
    assert (output / "table.png").stat().st_size > 10_000
    for name in ("shallow", "deep"):
        result, theirs = results[name], evaluate(output / name)
        assert result["mlm_loss"] == pytest.approx(theirs["mlm_loss"], rel=1e-5)
        assert result["mlm_accuracy"] == pytest.approx(theirs["mlm_accuracy"])
        assert result["sop_accuracy"] == pytest.approx(theirs["sop_accuracy"])
        leaves = jax.tree.leaves(albert_jax.load(output / name).params)
        assert result["parameters"] == sum(leaf.size for leaf in leaves)
        assert f"| {name} | 1 M | 1.0 | 54.9 | 52.4 | 53.3 | 0.0" in text


def test_a_row_begins_with_the_model_of_another_depth(done):
    output, _ = done
    config = json.loads((output / "deep" / "config.json").read_text())["config"]
    assert config["init_from"] == str(output / "shallow")
    assert config["model"]["num_hidden_layers"] == 2
    tokenizer = load_tokenizer(output / "deep" / "tokenizer.model")
    begun = read_start(config_from_dict(config), tokenizer)
    shallow = albert_jax.load(output / "shallow")
    jax.tree.map(np.testing.assert_array_equal, begun.params, shallow.params)


def test_finished_rows_are_not_trained_again(done, table, monkeypatch):
    output, results = done

    def never(*_: object) -> None:
        raise AssertionError("a finished row was trained again")

    monkeypatch.setattr(processes, "_start", never)
    names = ["shallow", "deep"]
    assert sweep(table, "paper", output, names) == results


def test_a_killed_sweep_ends_its_rows_and_goes_on(table, done, tmp_path):
    output = tmp_path / "runs"
    command = [sys.executable, "-m", "albert_jax.sweep", table, "--output", str(output)]
    command += ["--row", "shallow"]
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None and not (output / "shallow" / "metrics.jsonl").exists():
        time.sleep(0.02)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while is_locked(output / "shallow") and time.monotonic() < deadline:
        time.sleep(0.1)  # its run saves its state, and ends
    assert not is_locked(output / "shallow")
    assert not (output / "shallow" / "result.json").exists()
    subprocess.run(command, check=True)
    wanted = json.loads((done[0] / "results.json").read_text())
    assert json.loads((output / "results.json").read_text()) == {"shallow": wanted["shallow"]}


def is_locked(folder: Path) -> bool:
    try:
        with locked(folder):
            return False
    except ValueError:
        return True


def test_other_settings_than_before_are_refused(done, table):
    output, _ = done
    before = (output / "results.json").read_text()
    with pytest.raises(ValueError, match=r"train.seed: was 0, now 1. Restore them, or choose"):
        sweep(table, "paper", output, ["shallow"], overrides=["--config.train.seed=1"])
    assert (output / "results.json").read_text() == before


def test_rows_that_an_override_makes_equal_are_refused(table, tmp_path, capsys):
    words = ["--config.model.num_hidden_layers=2", "--config.model.vocab_size=60"]
    assert main([table, "--output", str(tmp_path / "runs"), *words]) == 1
    assert "rows 'shallow' and 'broken' come to the same" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.py"], "'nowhere.py' does not exist"),
        (["configs/small.py", "--row", "sop"], "--row and --scale are for the paper's tables"),
        (["configs/paper/table5.py", "--row", "spo"], "no row 'spo'; choose from none, nsp, sop"),
    ],
)
def test_what_is_not_there_is_refused(words, message, capsys, monkeypatch, repo_root):
    monkeypatch.chdir(repo_root)
    assert main(words) == 1
    assert message in capsys.readouterr().err


def test_another_depth_fits_only_where_all_is_shared(rows, tmp_path):
    tokenizer = load_tokenizer(rows / "tokenizer.model")
    train = {"num_steps": 3}

    def deeper(share: str) -> Config:
        run = tmp_path / share
        tiny_run(rows, run, model={"share": share}, train=train)
        config = tiny_config(rows, model={"share": share, "num_hidden_layers": 5}, train=train)
        return dataclasses.replace(config, init_from=str(run))

    read_start(deeper("all"), tokenizer)
    with pytest.raises(ValueError, match="num_hidden_layers is 3, but this run has 5"):
        read_start(deeper("attention"), tokenizer)


def test_tables_without_intrinsic_scores_leave_those_columns_out(tmp_path):
    scores = Scores((1.0, 1.0), (1.0, 1.0), 1.0, 1.0, 1.0, 80.1)
    result = {"parameters": 4_200_000, "mlm_loss": 6.5, "mlm_accuracy": 0.1} | {
        f"{name}_accuracy": 0.5 for name in ("nsp", "sop")
    }
    rows = {"a": TableRow("base.py", {}, scores, 12), "b": TableRow("base.py", {}, scores)}
    results = {"a": result, "b": {"failed": "ValueError: no | such\ndata"}}
    write_table(tmp_path / "table.md", "Table 1", "small", rows, results)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[-2] == "| a | 12 M | 80.1 | 4.20 M | 6.500 | 10.0 | 50.0 | 50.0 |"
    assert lines[-1] == "| b |  | 80.1 | failed: ValueError: no / such data |  |  |  |  |"
    assert len({line.count("|") for line in lines[4:]}) == 1
    draw_table(tmp_path / "table.png", "Table 1", "small", rows, results)
    assert (tmp_path / "table.png").stat().st_size > 10_000
