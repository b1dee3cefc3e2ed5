"""Sound input of every kind, and the ways in which a test makes some of it bad."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
from safetensors.numpy import load_file, save_file
from support.models import tiny_config, tiny_model
from support.params import random_params
from support.texts import VOCAB_SIZE, WORDS
from support.tiny_runs import tiny_run, tiny_settings, write_config

from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.formats.tensorflow import write_tf
from albert_jax.checkpoints.weights import Weights
from albert_jax.convert import write_run
from albert_jax.data.tokenizers import read_vocabulary
from albert_jax.model.heads import KINDS

TABLE = '''"""Table 0: one row."""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow

SCORES = Scores((1.0, 1.0), (1.0, 1.0), 1.0, 1.0, 1.0, 1.0, (54.9, 52.4, 53.3))
ROWS = {{"only": TableRow("", {{}}, SCORES, 1)}}


def get_config(argument):
    return ConfigDict({values!r})
'''
MODEL = tiny_model(vocab_size=VOCAB_SIZE, num_hidden_layers=2)
SIZES = {
    "train": {"num_steps": 2, "eval_every": 2, "checkpoint_every": 2},
    "optimizer": {"warmup_steps": 1},
}

# What a case does to its own folder, given those of sound input.
Change = Callable[[Path, Path], None]


def make_texts(good: Path, source: Path) -> Path:
    """Fills a folder: text, vocabulary and rows of `source`, a config, a table, a model."""
    shutil.copytree(source, good, dirs_exist_ok=True)
    values = tiny_settings(good / "rows", **SIZES)
    write_config(good / "config.py", values)
    (good / "table.py").write_text(TABLE.format(values=values))
    write_hf(_pretrained(good), good / "hf")
    return good


def _pretrained(good: Path) -> Weights:
    return Weights(MODEL, random_params(MODEL), "pretraining", read_vocabulary(good))


def make_models(good: Path, source: Path, peer: str) -> Path:
    """Fills a folder with that too, and with a run, models in every format, examples.

    The original's format is among them where `peer` is "tensorflow".
    """
    make_texts(good, source)
    tiny_run(good / "rows", good / "run", **SIZES)
    weights = _pretrained(good)
    if peer == "tensorflow":
        write_tf(weights, good / "tf")
    classifier = weights._replace(
        params=random_params(MODEL, KINDS["classification"]),
        kind="classification",
        labels=("bad", "good"),
    )
    write_hf(classifier, good / "hf_classifier")
    task = {"name": "classification", "max_length": 64}
    config = tiny_config(model=dataclasses.asdict(MODEL), task=task)
    write_run(classifier, good / "classifier", config)
    (good / "examples").mkdir()
    for split in ("train", "dev"):
        (good / "examples" / f"{split}.tsv").write_text("text\tlabel\na\tgood\nb\tbad\n" * 1)
    return good


def snapshot(folder: Path) -> dict[str, str]:
    """What lies in a folder: links by where they lead to, files by their content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder" if path.is_dir() else "other"
    return found


def write(name: str, content: str | bytes) -> Change:
    """Writes a file, and the folders above it."""

    def change(tmp: Path, good: Path) -> None:
        path = tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))

    return change


def copy(source: str, name: str) -> Change:
    """Copies something of the sound input."""

    def change(tmp: Path, good: Path) -> None:
        path = good / source
        (tmp / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, tmp / name)

    return change


def remove(name: str) -> Change:
    def change(tmp: Path, good: Path) -> None:
        path = tmp / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(pattern: str, size: int) -> Change:
    """Leaves of a file its first bytes; with a negative size, all but its last."""

    def change(tmp: Path, good: Path) -> None:
        (path,) = tmp.glob(pattern)
        path.write_bytes(path.read_bytes()[:size])

    return change


def edit_json(name: str, **values: Any) -> Change:
    """Sets keys of a JSON object; an ellipsis removes one."""

    def change(tmp: Path, good: Path) -> None:
        merged = json.loads((tmp / name).read_text()) | values
        (tmp / name).write_text(json.dumps({k: v for k, v in merged.items() if v is not ...}))

    return change


def edit_tensors(name: str, edit: Callable[[dict[str, np.ndarray]], Any]) -> Change:
    def change(tmp: Path, good: Path) -> None:
        tensors = load_file(tmp / name)
        edit(tensors)
        save_file(tensors, tmp / name)

    return change


def link(name: str, target: str) -> Change:
    def change(tmp: Path, good: Path) -> None:
        (tmp / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp / name).symlink_to(target.format(tmp=tmp, good=good))

    return change


def sentencepiece(name: str) -> Change:
    """Trains a vocabulary with SentencePiece's own special ids, which are not ALBERT's."""

    def change(tmp: Path, good: Path) -> None:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(WORDS),
            model_prefix=str(tmp / name).removesuffix(".model"),
            vocab_size=40,
            minloglevel=2,
        )

    return change


def fifo(name: str) -> Change:
    def change(tmp: Path, good: Path) -> None:
        (tmp / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp / name)

    return change


@contextlib.contextmanager
def read_only(folder: Path) -> Generator[None]:
    """Within it, an empty folder is a file system that is mounted for reading only."""
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs root, to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def as_nobody() -> Generator[None]:
    """Within it, permission bits bind this process, also where it is root's."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
