"""The job script in a real SLURM on this host: training together, back into the queue."""

import getpass
import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from support.commands import executable, run
from support.texts import VOCAB_SIZE, write_corpus, write_vocabulary
from support.tiny_runs import write_config

from albert_jax.prepare.pipeline import prepare
from albert_jax.train.curves import read_metrics

SLURM_CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=3
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=60 State=UP
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF State=UP
"""
DAEMONS = ("munged", "slurmctld", "slurmd")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str]]:
    """A cluster of this host alone, with two places; the environment in which commands find it."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=path) is None]
    if missing:
        pytest.skip(f"needs SLURM (Debian's slurmctld, slurmd, munge): no {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(stat.S_IRUSR)
    host = socket.gethostname().split(".")[0]
    text = SLURM_CONF.format(host=host, user=getpass.getuser(), folder=folder, ports=free_ports(2))
    (folder / "slurm.conf").write_text(text)
    env = {"PATH": path, "SLURM_CONF": str(folder / "slurm.conf")}
    names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log",
             "seed-file": "seed"}  # fmt: skip
    munge = [f"--{option}={folder}/munge.{name}" for option, name in names.items()]
    commands = [["munged", "--foreground", "--force", *munge], ["slurmctld", "-D", "-i"]]
    daemons = []
    try:
        for command in (*commands, ["slurmd", "-D"]):
            with open(folder / f"{command[0]}.out", "w") as out:
                daemons.append(
                    subprocess.Popen(command, env=os.environ | env, stdout=out, stderr=out)
                )
            time.sleep(1)
        wait_until(lambda: "idle" in run("sinfo", "--noheader", env=env)[1], 60, folder)
        yield env
    finally:
        run("scancel", f"--user={getpass.getuser()}", env=env)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=60)


def wait_until(is_so: Callable[[], bool], seconds: float, logs: Path) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        said = [f"{path}: {path.read_text()}" for path in logs.glob("*.out")]
        assert time.monotonic() < deadline, "\n".join(said)
        time.sleep(0.5)


@pytest.fixture
def tree(repo_root: Path, tmp_path: Path) -> Path:
    """The repository with a finished environment: this one, whose lock file holds nothing."""
    top = tmp_path / "tree"
    (top / ".venv" / "bin").mkdir(parents=True)
    shutil.copytree(repo_root / "launch", top / "launch")
    (top / "albert_jax").symlink_to(repo_root / "albert_jax")
    (top / "requirements.txt").write_text("# nothing\n")
    executable(top / ".venv/bin/python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    lock = run("cksum", "requirements.txt", cwd=top)[1]
    (top / ".venv/installed").write_text(f"python 11 somewhere\naccelerator cpu\n{lock}")
    return top


def submit(slurm: dict[str, str], tree: Path, *args: str, **env: str) -> str:
    """Submits the job script for two tasks on this host; returns the job's number."""
    options = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1"]
    command = ["sbatch", "--parsable", "--output=log.out", *options, "launch/slurm.sbatch", *args]
    status, said, message = run(*command, env=slurm | env, cwd=tree)
    assert status == 0, message
    return said.strip()


def shown(slurm: dict[str, str], job: str) -> dict[str, str]:
    """What SLURM says about a job."""
    words = run("scontrol", "--oneliner", "show", "job", job, env=slurm)[1].split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def settings_of(rows: Path) -> dict[str, Any]:
    return {
        "model": {"vocab_size": VOCAB_SIZE, "embedding_size": 8, "hidden_size": 16,
                  "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
                  "max_position_embeddings": 32},
        "data": {"path": str(rows), "seq_len": 32},
        "optimizer": {"warmup_steps": 1},
        "train": {"batch_size": 4, "num_steps": 3, "dtype": "float32", "log_every": 1,
                  "eval_every": 3, "checkpoint_every": 3},
    }  # fmt: skip


@pytest.mark.nightly
def test_two_tasks_of_a_slurm_job_train_together(slurm, tree):
    prepare(
        [write_corpus(tree / "texts.jsonl", documents=40)],
        tree / "rows",
        tokenizer=write_vocabulary(tree / "v.model"),
        seq_len=32,
        validation_fraction=0.2,
        num_workers=1,
    )
    write_config(tree / "some.py", settings_of(tree / "rows"))
    cpus = {"LAUNCH": "launch/local.sh", "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    job = submit(slurm, tree, "--config", "some.py", "--workdir", "run", **cpus)
    running = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")
    wait_until(lambda: shown(slurm, job)["JobState"] not in running, 1800, tree)
    said = (tree / "log.out").read_text()
    assert shown(slurm, job)["JobState"] == "COMPLETED", said
    assert "4 × cpu as data 4, fsdp 1, tensor 1, in 2 processes" in said
    assert said.count("held-out MLM loss") == 1
    lines = read_metrics(tree / "run" / "metrics.jsonl")
    assert [m["step"] for m in lines if m["split"] == "train"] == [1, 2, 3]


STAND_IN = """#!/usr/bin/env bash
# In place of training: stops at a signal, when it runs for the first time.
echo "task $SLURM_PROCID of $SLURM_NTASKS, restart ${SLURM_RESTART_COUNT:-0}: $*"
if [[ ${SLURM_RESTART_COUNT:-0} != 0 ]]; then exit "$SECOND"; fi
trap '%s' TERM
for ((i = 0; i < 1200; i++)); do sleep 0.1; done
exit 9
"""


def first_run(slurm: dict[str, str], tree: Path, at_term: str, **env: str) -> str:
    """Submits a job of stand-ins, and returns its number when both tasks run."""
    executable(tree / "stand_in.sh", STAND_IN % at_term)
    job = submit(slurm, tree, "--config", "a b", LAUNCH="./stand_in.sh", **env)
    log = tree / "log.out"
    wait_until(lambda: log.exists() and log.read_text().count("restart 0") == 2, 120, tree)
    return job


def second_run(slurm: dict[str, str], tree: Path, job: str) -> str:
    """Waits until a job was requeued and ended; returns its state."""

    def has_restarted() -> bool:
        # SLURM would wait for two minutes; while the first run ends, it does not listen.
        run("scontrol", "update", f"job={job}", "StartTime=now", env=slurm)
        return (tree / "log.out").read_text().count("restart 1: --config a b") == 2

    wait_until(has_restarted, 180, tree)
    wait_until(lambda: shown(slurm, job)["JobState"] not in ("RUNNING", "COMPLETING"), 60, tree)
    return shown(slurm, job)["JobState"]


@pytest.mark.nightly
def test_a_preempted_job_goes_back_into_the_queue(slurm, tree):
    """Another job takes its place; it saves, ends with 75, and comes again."""
    job = first_run(slurm, tree, "exit 75", SECOND="0")
    more = ("--partition=high", "--ntasks=2", "--wrap=true", "--output=/dev/null", "--parsable")
    other = run("sbatch", *more, env=slurm)[1].strip()
    wait_until(lambda: shown(slurm, other)["JobState"] == "COMPLETED", 120, tree)
    assert second_run(slurm, tree, job) == "COMPLETED"
    assert "Exited with exit code 75" in (tree / "log.out").read_text()


@pytest.mark.nightly
def test_a_job_that_does_not_stop_in_time_is_requeued_too(slurm, tree):
    """As before the end of its time, when the script alone gets the signal; then it fails."""
    job = first_run(slurm, tree, "echo heard", SECOND="3", GRACE="3")
    run("scancel", "--signal=TERM", "--batch", job, env=slurm)
    assert second_run(slurm, tree, job) == "FAILED"
    assert (tree / "log.out").read_text().count("heard") >= 2  # and once more at the end
    assert shown(slurm, job)["ExitCode"] == "3:0"
