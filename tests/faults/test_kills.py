"""SIGKILL at any moment: what was begun goes on to the same bits, and nothing half is left."""

import collections
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runs import assert_same_end, command_for, snapshot, start
from support.texts import write_corpus, write_vocabulary
from support.tiny_runs import tiny_config, tiny_settings

from albert_jax.checkpoints.checksums import damage_of, is_sealed
from albert_jax.train.curves import read_metrics

KILLS = 21
TRAIN = {"num_steps": 100, "log_every": 1, "eval_every": 2, "checkpoint_every": 1,
         "keep_checkpoints": 2}  # fmt: skip


def run_to_end(command: list[str]) -> None:
    _, err = (process := start(command)).communicate(timeout=900)
    assert process.returncode == 0, err


def steps(run: Path) -> list[Path]:
    return [path for path in (run / "checkpoints").glob("*") if path.name.isdecimal()]


def newest(run: Path) -> int:
    return max((int(path.name) for path in steps(run)), default=0)


def is_saving(run: Path) -> bool:
    return any((run / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def is_evaluating(run: Path) -> bool:
    """A step is logged at which there is an evaluation, and that is not."""
    path = run / "metrics.jsonl"
    lines = read_metrics(path) if path.exists() else []
    return bool(lines) and lines[-1]["split"] == "train" and lines[-1]["step"] % 2 == 0


def phases_of(run: Path, was: int) -> list[str]:
    """What a killed process was at, by what it left; it saves beside all else."""
    removing = any(not is_sealed(path) or damage_of(path) for path in steps(run))
    found = {
        "removing an old checkpoint": removing,
        "saving": is_saving(run),
        "evaluating": is_evaluating(run),
        "before its first save": newest(run) == was,
    }
    return [name for name, is_so in found.items() if is_so] or ["between"]


def wait_for(seen: Callable[[], bool], process: subprocess.Popen[str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline
        if process.poll() is not None:
            return
        time.sleep(0.001)


def kill_at(aim: str, run: Path, process: subprocess.Popen[str], draw: random.Random) -> None:
    """Waits for the moment, and a little, and kills."""
    if aim == "any" and draw.random() < 0.5:  # from the imports on
        time.sleep(draw.uniform(0.5, 5))
    elif aim == "any":
        begun = newest(run)
        wait_for(lambda: newest(run) > begun, process, 900)
        time.sleep(draw.uniform(0, 0.5))
    else:
        begun = newest(run)
        wait_for(lambda: newest(run) > begun + draw.randint(0, 3), process, 900)
        wait_for(lambda: {"save": is_saving, "evaluation": is_evaluating}[aim](run), process, 300)
        time.sleep(draw.uniform(0, 0.03))
    process.kill()


@pytest.mark.nightly
def test_a_run_killed_many_times_ends_as_if_it_never_was(rows, tmp_path):
    config, draw = tiny_config(rows, train=TRAIN), random.Random(0)
    # A process of its own too: beside idle devices XLA shares work among threads otherwise.
    seldom = tiny_settings(rows, train=TRAIN | {"checkpoint_every": 100})
    run_to_end(command_for(seldom, tmp_path / "seldom.py", tmp_path / "whole"))
    run, phases = tmp_path / "run", collections.Counter()
    command = command_for(tiny_settings(rows, train=TRAIN), tmp_path / "some.py", run)
    for number in range(KILLS):
        was = newest(run)
        process = start(command)
        kill_at(("save", "evaluation", "any")[number % 3], run, process, draw)
        _, err = process.communicate(timeout=60)
        assert process.returncode == -9, err
        phases.update(phases_of(run, was))
    print(f"{KILLS} kills: {dict(phases)}; the newest checkpoint is {newest(run)}")
    run_to_end(command)
    assert phases["saving"] + phases["removing an old checkpoint"] >= 3
    assert phases["evaluating"] >= 2
    assert_same_end(run, tmp_path / "whole", config)
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"99", "100"}


def prepare_command(folder: Path, output: Path) -> list[str]:
    arguments: dict[str, Any] = {"input": folder / "texts.jsonl", "output": output,
                                 "tokenizer": folder / "v.model", "seq_len": 64,
                                 "validation_fraction": 0.1, "num_workers": 2}  # fmt: skip
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "albert_jax.prepare", *words]


@pytest.mark.nightly
def test_a_killed_prepare_leaves_no_data_set(tmp_path):
    """Ten kills from the imports to the end; what is there under the final name is whole."""
    write_corpus(tmp_path / "texts.jsonl", documents=6000)
    write_vocabulary(tmp_path / "v.model")
    began = time.monotonic()
    run_to_end(prepare_command(tmp_path, tmp_path / "whole"))
    seconds = time.monotonic() - began
    expected, output = snapshot(tmp_path / "whole"), tmp_path / "out" / "rows"
    output.parent.mkdir()
    left = 0
    for number in range(10):
        process = start(prepare_command(tmp_path, output))
        time.sleep(seconds * (0.3 + 0.07 * number))
        process.kill()
        process.communicate(timeout=60)
        left += any(output.parent.glob(".rows*"))
        if output.exists():
            assert snapshot(output) == expected
            assert json.loads((output / "manifest.json").read_text())["documents"] > 6000
            break
    assert left >= 3, "no kill fell into the work"
    run_to_end(prepare_command(tmp_path, output))
    assert snapshot(output) == expected
    assert [path.name for path in output.parent.iterdir()] == ["rows"]
