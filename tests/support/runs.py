"""Training as a process of its own, and what two runs must have in common."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from support.paths import ROOT
from support.tiny_runs import write_config

from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.config import Config
from albert_jax.train import make_experiment
from albert_jax.train.curves import read_metrics

_CLOCK = ("tokens_per_second", "model_flops_per_second", "peak_flops_per_second", "mfu")


def command_for(
    settings: dict[str, Any], config_file: Path, workdir: Path, *more: str
) -> list[str]:
    """The training command of these settings."""
    write_config(config_file, settings)
    command = [sys.executable, "-m", "albert_jax.train", "--config", str(config_file)]
    return [*command, "--workdir", str(workdir), *more]


def start(command: list[str], devices: int = 1, **env: str) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": str(devices)} | env
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def numbers(workdir: Path) -> list[dict[str, Any]]:
    """The metrics, without what depends on the clock."""
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in _CLOCK} for line in lines]


def state_of(workdir: Path, config: Config, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, by its path."""
    abstract = make_experiment(config, workdir).spec.abstract_state
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        state, _ = checkpoints.restore(step, abstract)
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def assert_same_end(one: Path, other: Path, config: Config) -> None:
    """The same metrics, parameters and optimizer state, to the bit."""
    assert numbers(one) == numbers(other)
    steps = config.train.num_steps
    arrays, others = state_of(one, config, steps), state_of(other, config, steps)
    assert arrays.keys() == others.keys()
    assert len(arrays) > 60  # parameters and two moments of each
    for path, array in arrays.items():
        np.testing.assert_array_equal(array, others[path], err_msg=path)


def steps_in(workdir: Path) -> list[int]:
    """The steps that have a checkpoint, whole or not."""
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def error_line(stderr: str) -> str:
    """The only line of an error for users; without a traceback beside it."""
    assert "Traceback" not in stderr, stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return line


def said_last(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
