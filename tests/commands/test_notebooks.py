"""The notebooks run from top to bottom, draw, and are stored without what they drew."""

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from support.paths import ROOT
from support.texts import WORDS
from support.tiny_runs import tiny_run

from albert_jax.config import config_from_dict
from albert_jax.train import make_experiment
from albert_jax.train.loop import train

FOLDER = ROOT / "notebooks"
NAMES = ("01_checkpoint", "02_layers", "03_runs", "04_finetuned")
PICTURES = {"01_checkpoint": 3, "02_layers": 3, "03_runs": 4, "04_finetuned": 2}


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def places(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the notebooks are pointed at: three tiny runs and a table of texts."""
    folder = tmp_path_factory.mktemp("runs")
    sizes = {"max_position_embeddings": 128}  # the notebooks' sentences, a piece a letter
    shared = tiny_run(rows, folder / "shared", model=sizes)
    unshared = tiny_run(rows, folder / "unshared", model=sizes | {"share": "none"})
    data = folder / "texts"
    data.mkdir()
    pairs = zip(itertools.cycle(("up", "down")), itertools.pairwise(WORDS), strict=False)
    table = ["text\tlabel", *(f"{' '.join(words)}\t{label}" for label, words in pairs)]
    for split in ("train", "validation"):
        (data / f"{split}.tsv").write_text("\n".join(table) + "\n")
    settings = {
        "task": {"name": "classification", "data": str(data), "max_length": 32},
        "train": {
            "batch_size": 8, "num_steps": 4, "dtype": "float32", "eval_every": 4,
            "checkpoint_every": 4,
        },
        "optimizer": {"name": "adamw", "warmup_steps": 1},
        "init_from": str(shared),
    }  # fmt: skip
    train(make_experiment(config_from_dict(settings), folder / "tuned"))
    return {
        "SHARED": str(shared),
        "UNSHARED": str(unshared),
        "RUNS": f"{shared}:{unshared}",
        "RUN": str(shared),
        "TUNED": str(folder / "tuned"),
        "DATA": str(data),
    }


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_stored_without_outputs(name):
    for cell in read(name).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_top_to_bottom_and_draws(name, places, tmp_path, monkeypatch):
    own = {"RUN": places["TUNED"]} if name == "04_finetuned" else {}
    for key, value in (places | own).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")  # the kernel's own, of its packages
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = read(name)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(FOLDER)}})
    client.execute()
    pictures = [
        output.data["image/png"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    for i, picture in enumerate(pictures):
        (tmp_path / f"{name}-{i}.png").write_bytes(base64.b64decode(picture))
    assert len(pictures) == PICTURES[name]
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert "nan" not in json.dumps(
        [o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", ())]
    )
