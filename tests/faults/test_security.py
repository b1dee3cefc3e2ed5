"""Nothing that is loaded runs code or leads out of its folder, and it is on record."""

import ast
import hashlib
import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.models import tiny_model
from support.params import random_params
from support.tiny_runs import tiny_settings

import albert_jax
from albert_jax.checkpoints.formats.hub import fetch
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.formats.tensorflow import write_tf
from albert_jax.checkpoints.read import read
from albert_jax.checkpoints.weights import Weights
from albert_jax.config import Config, config_from_dict
from albert_jax.convert import main as convert
from albert_jax.data.tfds import _our_name
from albert_jax.evaluate import evaluate
from albert_jax.train import make_experiment
from albert_jax.train.loop import train

# Names that run code that they read, or hand it on to something that does.
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "yaml"}
FUNCTIONS = {"eval", "exec", "compile", "__import__", "system", "popen"}
# Where one of them is right all the same, and why.
ALLOWED = {
    # Files of one Beam run, in a folder that it made; Beam pickles what goes between workers too.
    ("prepare/beam_ledgers.py", "pickle"),
}


def names_in(text: str) -> set[str]:
    """The forbidden names that a program uses, and calls that could unpickle."""
    found, calls = set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & MODULES
        elif isinstance(node, ast.Name):
            found |= {node.id} & FUNCTIONS
        elif isinstance(node, ast.Attribute) and node.attr in {"system", "popen"}:
            found.add(node.attr)
        elif isinstance(node, ast.Call):
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            called = ast.unparse(node.func)
            unpickles = called == "torch.load" and given.get("weights_only") != "True"
            unpickles |= given.get("allow_pickle", "False") != "False"
            if unpickles or "trust_remote_code" in given:
                calls.add(called)
    return found | calls


def test_nothing_in_the_package_runs_what_it_reads(repo_root):
    folder = repo_root / "albert_jax"
    found = {
        (str(path.relative_to(folder)), name)
        for path in folder.rglob("*.py")
        for name in names_in(path.read_text("utf-8"))
    }
    assert found == ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "eval('1')",
        "os.system('ls')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_what_would_run_code_is_found(text):
    assert names_in(text)


class Bomb:
    """Its unpickling makes a file."""

    def __init__(self, path: Path):
        self._path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self._path,))


def zipped(content: Any) -> bytes:
    """As today's `torch.save` writes."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def beside_a_tensor(bomb: Bomb) -> dict[str, Any]:
    import torch

    return {"w": torch.ones(2), "bomb": bomb}


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    write_hf(Weights(tiny_model(), random_params(tiny_model()), "pretraining"), tmp_path / "hf")
    return tmp_path / "hf"


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("serialize", [pickle.dumps, zipped])
@pytest.mark.parametrize("wrap", [lambda bomb: bomb, beside_a_tensor])
def test_a_malicious_pickle_is_refused_and_does_nothing(hf, tmp_path, serialize, wrap):
    (hf / "model.safetensors").unlink()
    content, trace = wrap(Bomb(tmp_path / "trace")), tmp_path / "trace"
    (hf / "pytorch_model.bin").write_bytes(serialize(content))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: cannot be read as weights only"):
        albert_jax.load(hf)
    assert not trace.exists()
    pickle.loads(pickle.dumps(content))  # it would have made the file
    assert trace.exists()


def test_code_beside_a_model_is_not_run(hf, tmp_path):
    trace = tmp_path / "trace"
    for name in ("modeling_albert.py", "tokenization_albert.py", "conftest.py", "__init__.py"):
        (hf / name).write_text(f"open({str(trace)!r}, 'w')")
    config = json.loads((hf / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "modeling_albert.Albert"}
    (hf / "config.json").write_text(json.dumps(config))
    albert_jax.load(hf)
    assert not trace.exists()


OUTSIDE = ["../secret.safetensors", "/etc/passwd", "sub/../../secret.safetensors", "..", ""]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("index", ["model.safetensors", "pytorch_model.bin"])
def test_shards_outside_the_folder_are_refused(hf, tmp_path, name, index):
    (hf / "model.safetensors").rename(tmp_path / "secret.safetensors")
    (hf / f"{index}.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises((ValueError, FileNotFoundError), match=r"index\.json"):
        read(hf)


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("is_absolute", [True, False])
def test_a_checkpoint_outside_the_folder_is_refused(tmp_path, is_absolute):
    weights = Weights(tiny_model(), random_params(tiny_model()), "pretraining")
    for name in ("mine", "other"):
        write_tf(weights, tmp_path / name)
    prefix = f"{tmp_path}/other/model.ckpt-0" if is_absolute else "../other/model.ckpt-0"
    (tmp_path / "mine" / "checkpoint").write_text(f'model_checkpoint_path: "{prefix}"\n')
    with pytest.raises(ValueError, match=r"mine/checkpoint: .* is not a file of this directory"):
        read(tmp_path / "mine")
    # A whole path is what TensorFlow often writes, and right where it leads here.
    (tmp_path / "mine" / "checkpoint").write_text(
        f'model_checkpoint_path: "{tmp_path}/mine/model.ckpt-0"\n'
    )
    read(tmp_path / "mine")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:../../etc", "Repo id must"),
        ("hf:/etc/passwd", "Repo id must"),
        ("hf:a/..", "Repo id must"),
        ("hf:a/b@../../../x", "is not a valid name of a revision"),
        ("hf:a/b@/etc", "is not a valid name of a revision"),
    ],
)
def test_names_of_the_hub_lead_nowhere_else(name, message):
    with pytest.raises(ValueError, match=message):
        fetch(name)


def test_splits_name_files_of_the_output_only():
    assert _our_name("test_matched") == "test_matched"
    assert _our_name("test_1.0-b") == "test_1.0-b"
    assert _our_name("test_/../../x") is None


def test_names_of_classes_name_no_files(tmp_path):
    labels = ("../../evil", "/etc/evil")
    params = random_params(tiny_model(), ("pooler", "classifier"), 2)
    weights = Weights(tiny_model(), params, "classification", labels=labels)
    write_hf(weights, tmp_path / "hf")
    assert convert(["--input", str(tmp_path / "hf"), "--output", str(tmp_path / "run"),
                    "--to", "orbax"]) == 0  # fmt: skip
    assert read(tmp_path / "run").labels == labels
    assert not list(tmp_path.rglob("evil*"))


def test_links_in_a_folder_of_the_hub_are_followed(hf, tmp_path):
    """The hub's own cache is made of links to files elsewhere: what a folder names is its own."""
    plain = albert_jax.load(hf).params
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path in list(hf.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(Path("..") / "blobs" / path.name)
    assert all(path.is_symlink() for path in hf.iterdir())
    jax.tree.map(np.testing.assert_array_equal, albert_jax.load(hf).params, plain)


def test_arrays_of_objects_are_not_read(hf, tmp_path):
    """No file of numpy's is read at all; one in place of the weights is no weights."""
    bomb = np.array([Bomb(tmp_path / "trace")], object)
    with open(hf / "model.safetensors", "wb") as f:
        np.savez(f, bomb)
    with pytest.raises(ValueError, match="damaged"):
        albert_jax.load(hf)
    assert not (tmp_path / "trace").exists()


# ---- the record ----


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


SHORT = {
    "train": {"num_steps": 2, "eval_every": 2, "checkpoint_every": 2},
    "optimizer": {"warmup_steps": 1},
}


def config_of(rows: Path, source: Path | str = "") -> Config:
    return config_from_dict(tiny_settings(rows, **SHORT) | {"init_from": str(source)})


def run_of(rows: Path, workdir: Path, source: Path | str = "") -> Path:
    train(make_experiment(config_of(rows, source), workdir))
    return workdir


@pytest.mark.slow
@pytest.mark.tensorflow
def test_a_run_records_what_it_began_with(rows, tmp_path):
    """Also where it began with nothing, and for every format; resuming changes nothing in it."""
    first = run_of(rows, tmp_path / "first")
    record = json.loads((first / "config.json").read_text())
    assert record["start"] is None
    assert record["tokenizer_sha256"] == sha256(first / "tokenizer.model")
    assert len(record["data_fingerprint"]) == 64
    for to in ("hf", "tf"):
        command = ["--input", str(first), "--output", str(tmp_path / to), "--to", to]
        assert convert(command) == 0
    sources = {"run": first, "hf": tmp_path / "hf", "tf": tmp_path / "tf"}
    for name, source in sources.items():
        config = config_of(rows, source)
        workdir = tmp_path / f"from_{name}"
        make_experiment(config, workdir)
        text = (workdir / "config.json").read_text()
        start = json.loads(text)["start"]
        assert start["source"] == str(source)
        files = start["files"]
        assert files == {file: sha256(source / file) for file in files}
        assert {Path(file).name for file in files} > NEEDED[name]
        make_experiment(config, workdir)  # before its first checkpoint
        assert (workdir / "config.json").read_text() == text


NEEDED: dict[str, set[str]] = {
    "run": {"config.json", "tokenizer.model"},
    "hf": {"config.json", "model.safetensors", "spiece.model"},
    "tf": {"albert_config.json", "30k-clean.model", "model.ckpt-2.index"},
}


@pytest.mark.slow
def test_other_weights_under_the_same_name_are_refused_until_it_has_begun(rows, tmp_path):
    first = run_of(rows, tmp_path / "first")
    source = tmp_path / "hf"
    assert convert(["--input", str(first), "--output", str(source), "--to", "hf"]) == 0
    config = config_of(rows, source)
    make_experiment(config, tmp_path / "second")
    sound = (source / "model.safetensors").read_bytes()
    weights = read(source)
    weights.params["mlm"]["bias"] += 1
    shutil.rmtree(source)
    write_hf(weights, source)
    with pytest.raises(ValueError, match=r"config\.init_from: its files have changed since"):
        make_experiment(config, tmp_path / "second")
    (source / "model.safetensors").write_bytes(sound)
    workdir = run_of(rows, tmp_path / "second", source)
    shutil.rmtree(source)  # no longer needed
    make_experiment(config, workdir)
    assert evaluate(workdir)["step"] == 2


def test_a_converted_run_records_its_source(rows, tmp_path):
    weights = Weights(tiny_model(), random_params(tiny_model()), "pretraining")
    write_hf(weights, tmp_path / "hf")
    command = ["--input", str(tmp_path / "hf"), "--output", str(tmp_path / "run"), "--to", "orbax"]
    assert convert(command) == 0
    start = json.loads((tmp_path / "run" / "config.json").read_text())["start"]
    names = ("config.json", "model.safetensors")
    assert start["files"] == {name: sha256(tmp_path / "hf" / name) for name in names}
    assert start["source"] == os.fspath(tmp_path / "hf")
