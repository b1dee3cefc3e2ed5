"""Runs in two processes: they give what one process gives, and go on where it stopped."""

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from support.distributed_runs import ROWS
from support.texts import VOCAB_SIZE, make_sentence, write_corpus, write_vocabulary
from support.tiny_runs import write_config
from support.two_processes import DEVICES, Ended, in_two

from albert_jax.checkpoints.manager import Checkpoints
from albert_jax.config import Config, config_from_dict
from albert_jax.prepare.pipeline import prepare
from albert_jax.train import make_experiment
from albert_jax.train.curves import read_metrics
from albert_jax.train.distributed import join_options
from albert_jax.train.loop import train

MODEL = {
    "vocab_size": VOCAB_SIZE,
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.1,
}
STEPS = 4
TRAIN = {"batch_size": 8, "num_steps": STEPS, "dtype": "float32", "log_every": 1,
         "eval_every": 2, "checkpoint_every": 2, "keep_checkpoints": 9}  # fmt: skip


EXPLICIT = {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234",
    "JAX_NUM_PROCESSES": "4",
    "JAX_PROCESS_ID": "3",
}
STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}


@pytest.mark.parametrize(
    ("environment", "options"),
    [
        ({}, None),
        (
            EXPLICIT | STEP,
            {
                "coordinator_address": "10.0.0.1:1234",
                "num_processes": 4,
                "process_id": 3,
                "cluster_detection_method": "deactivate",
            },
        ),
        (STEP | {"JAX_NUM_PROCESSES": "1"}, None),
        (STEP, {"cluster_detection_method": "slurm", "local_device_ids": None}),
        (
            STEP | {"SLURM_STEP_NUM_NODES": "8"},
            {"cluster_detection_method": "slurm", "local_device_ids": []},
        ),
        (
            STEP | {"SLURM_STEP_NUM_NODES": "8", "JAX_LOCAL_DEVICE_IDS": "0,1"},
            {"cluster_detection_method": "slurm", "local_device_ids": None},
        ),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, None),  # a batch script, not srun
    ],
)
def test_the_environment_tells_how_to_join(environment, options):
    assert join_options(environment, None) == options


@pytest.mark.parametrize(
    ("platforms", "environment", "options"),
    [
        ("tpu,cpu", {}, {}),
        ("tpu,cpu", {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "a,b"}, {}),
        ("tpu,cpu", {"TPU_SKIP_MDS_QUERY": "1"}, None),
        ("cpu", {"TPU_WORKER_HOSTNAMES": "a,b"}, None),
    ],
)
def test_tpus_ask_jax_for_their_neighbours(platforms, environment, options):
    assert join_options(environment, platforms) == options


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"JAX_PROCESS_ID": ""}, "without JAX_PROCESS_ID: set all three"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES='two' is not a whole number"),
    ],
)
def test_half_an_address_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        join_options(EXPLICIT | change, None)


@pytest.mark.slow
def test_processes_agree_and_hold_parts_of_what_all_use(tmp_path):
    first, second = in_two("parts", tmp_path, timeout=300)
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert first.found["error"] == "ValueError: process 1: no rows here"
    assert second.found["error"] == "FileNotFoundError: no rows here"
    for found in (first.found, second.found):
        assert found["note"] == "of process 0"
        assert found["weights"] == list(range(8))
        assert len(found["batches"]) == 4
        assert all(rows == list(range(ROWS)) for rows in found["batches"].values())


@pytest.mark.slow
def test_who_waits_for_a_lost_process_ends_too(tmp_path):
    first, second = in_two("lost", tmp_path, timeout=300)
    assert second.status == 1
    assert "out of memory, say" in second.err
    assert first.status != 0
    assert first.found == second.found == {}


@pytest.mark.slow
def test_what_one_process_misses_is_said_once(tmp_path, data):
    """The second has no data: both end with the first one's line."""
    write_config(tmp_path / "some.py", pretraining(data))
    command = [sys.executable, "-m", "albert_jax.train", "--config", str(tmp_path / "some.py")]
    command += ["--workdir", str(tmp_path / "run"), "--config.data.path"]
    paths = [str(data), str(tmp_path / "nowhere")]
    first, second = in_two(
        "", tmp_path, 300, lambda i: [*command[:-1], f"{command[-1]}={paths[i]}"]
    )
    assert (first.status, second.status) == (1, 1)
    lines = [line for line in first.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "process 1: " in lines[0]
    assert "nowhere" in lines[0]
    assert "error: " not in second.err
    assert (first.out, second.out) == ("", "")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    prepare(
        [write_corpus(folder / "texts.jsonl", documents=60)],
        folder / "rows",
        tokenizer=write_vocabulary(folder / "v.model"),
        seq_len=32,
        validation_fraction=0.2,
        num_workers=1,
    )
    return folder / "rows"


def pretraining(data: Path) -> dict[str, Any]:
    return {
        "model": MODEL,
        "data": {"path": str(data), "seq_len": 32},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 1},
        "train": TRAIN,
    }


def fine_tuning(folder: Path, vocabulary: Path) -> dict[str, Any]:
    """Texts of many lengths in two classes, by chance."""
    draw = random.Random(0)
    for split, count in (("train", 24), ("validation", 21)):
        rows = [f"{make_sentence(draw, 1, 9)}\t{draw.choice('ab')}" for _ in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    return {
        "model": MODEL,
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 1},
        "train": TRAIN,
        "init_from": "scratch",
        "task": {
            "name": "classification",
            "data": str(folder),
            "max_length": 32,
            "tokenizer": str(vocabulary),
            "seeds": (0, 1),
        },
    }


@pytest.mark.slow
def test_two_processes_stop_together_where_one_is_asked(data, tmp_path):
    long = TRAIN | {"num_steps": 5000, "log_every": 100}
    long |= {"eval_every": 5000, "checkpoint_every": 5000}
    write_config(tmp_path / "some.py", pretraining(data) | {"train": long})
    first, second = in_two("stopped", tmp_path, timeout=600)
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert first.found == second.found
    assert 3 <= first.found["step"] < 5000
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [first.found["step"]]


class Both(NamedTuple):
    """Runs of two processes and of one, with the same settings."""

    folder: Path
    config: Config
    ended: list[Ended]


@pytest.fixture(scope="module")
def both(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("both")
    (folder / "texts").mkdir()
    settings = pretraining(data)
    tuning = fine_tuning(folder / "texts", data / "tokenizer.model")
    write_config(folder / "pretrain.py", settings)
    write_config(folder / "finetune.py", tuning)
    run_alone(config_from_dict(settings), folder / "one")
    without_end(folder / "one", folder / "grown")
    return Both(folder, config_from_dict(settings), in_two("runs", folder, timeout=1800))


def run_alone(config: Config, workdir: Path) -> None:
    train(make_experiment(config, workdir, jax.devices()[: 2 * DEVICES]))


def without_end(workdir: Path, copy: Path) -> None:
    """Copies a run as it was half way."""
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints" / str(STEPS))


def assert_same_metrics(one: Path, other: Path) -> None:
    clock = ("tokens_per_second", "model_flops_per_second", "peak_flops_per_second", "mfu")
    lines, others = (read_metrics(workdir / "metrics.jsonl") for workdir in (one, other))
    kept = [[{k: v for k, v in m.items() if k not in clock} for m in x] for x in (lines, others)]
    assert [(m["step"], m["split"]) for m in lines] == [(m["step"], m["split"]) for m in others]
    assert {m["step"] for m in lines} == set(range(1, STEPS + 1))
    for mine, theirs in zip(*kept, strict=True):
        assert mine.pop("split") == theirs.pop("split")
        assert mine == pytest.approx(theirs, rel=1e-4), mine["step"]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(both):
    first, second = both.ended
    assert (first.status, second.status) == (0, 0), first.err + second.err
    assert_same_metrics(both.folder / "two", both.folder / "one")
    assert "in 2 processes" in first.out
    assert "unigram entropy" in first.out
    assert second.out == ""


@pytest.mark.slow
def test_two_processes_go_on_from_one_on_another_mesh(both):
    assert "resumes after step 2" in both.ended[0].out
    assert_same_metrics(both.folder / "grown", both.folder / "one")


@pytest.mark.slow
def test_one_process_goes_on_from_two(both, tmp_path):
    without_end(both.folder / "two", tmp_path / "run")
    run_alone(both.config, tmp_path / "run")
    assert_same_metrics(tmp_path / "run", both.folder / "one")


@pytest.mark.slow
def test_all_processes_refuse_another_run_and_evaluate_alike(both):
    first, second = both.ended
    assert first.found == second.found
    assert first.found["exit codes"] == [0, 0, 1, 0]
    assert "train.seed: was 0, now 5" in first.err
    last = read_metrics(both.folder / "two" / "metrics.jsonl")[-1]
    found = first.found["evaluated"]
    assert found == {k: pytest.approx(last[k], rel=1e-6) for k in found}


@pytest.mark.slow
def test_seeds_are_fine_tuned_in_two_processes(both):
    """Outputs of rows of many lengths come together in every process."""
    summary = json.loads((both.folder / "two_seeds" / "seeds.json").read_text())
    assert list(summary["values"]) == ["0", "1"]
    assert both.ended[0].out.count("accuracy: median") == 1
    tuning = json.loads((both.folder / "two_seeds" / "seed_1" / "config.json").read_text())
    run_alone(config_from_dict(tuning["config"]), both.folder / "one_seed")
    assert_same_metrics(both.folder / "two_seeds" / "seed_1", both.folder / "one_seed")
    assert np.isfinite(summary["median"])
