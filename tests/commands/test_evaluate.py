"""The command `evaluate` finds a run's data, from anywhere and after it has moved."""

import json
import shutil
from pathlib import Path

import pytest

from albert_jax.evaluate import main
from albert_jax.train.curves import read_metrics


@pytest.fixture
def moved(trained_run: Path, rows: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run whose rows are no longer where it found them, and where they are now."""
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    record = json.loads((run / "config.json").read_text())
    record["config"]["data"]["path"] = str(tmp_path / "nowhere")
    (run / "config.json").write_text(json.dumps(record))
    return run, Path(shutil.copytree(rows, tmp_path / "rows"))


def test_data_that_has_moved_is_given(moved, capsys, monkeypatch, tmp_path):
    run, rows = moved
    assert main(["--workdir", str(run)]) == 1
    assert "nowhere" in capsys.readouterr().err
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--workdir", "~/run", "--data", f"~/{rows.name}"]) == 0
    found = json.loads(capsys.readouterr().out)
    logged = read_metrics(run / "metrics.jsonl")[-1]
    assert found["step"] == logged["step"]
    assert found["loss"] == pytest.approx(logged["loss"], rel=1e-6)
    # The run still says where its data was when it was trained.
    assert "nowhere" in json.loads((run / "config.json").read_text())["config"]["data"]["path"]
