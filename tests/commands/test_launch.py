"""What starts training elsewhere: GPUs of a host, Cloud TPUs, Kubernetes, an image."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import executable, run

from albert_jax.config.load import load_config

SCRIPTS = ("multi_gpu.sh", "slurm.sbatch", "tpu_pod.sh")
ARGS = ["--config", "configs/tiny.py", "--workdir", "a b"]


def test_shellcheck_is_content(repo_root):
    shellcheck = Path(sys.executable).parent / "shellcheck"
    files = [f"launch/{script}" for script in SCRIPTS]
    assert run(shellcheck, "--external-sources", *files, cwd=repo_root) == (0, "", "")
    assert all(os.access(repo_root / file, os.X_OK) for file in files)


@pytest.fixture
def fake_gpus(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """An environment in which nvidia-smi lists what it is told to."""

    def make(listed: str) -> dict[str, str]:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        executable(folder / "nvidia-smi", f"#!/bin/sh\nprintf '%s' '{listed}'\n")
        return {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": "/home/me"}

    return make


def test_all_gpus_train_with_flags_that_the_user_may_add_to(repo_root, fake_gpus):
    script = repo_root / "launch/multi_gpu.sh"
    env = fake_gpus("GPU 0: H100\nGPU 1: H100\n") | {"XLA_FLAGS": "--mine", "XDG_CACHE_HOME": ""}
    env |= {"JAX_COMPILATION_CACHE_DIR": ""}
    status, said, message = run(script, "--dry-run", *ARGS, env=env, cwd="/")
    assert (status, message) == (0, "")
    estimate, *lines = [shlex.split(line) for line in said.splitlines()]
    assert estimate[-len(ARGS) - 2 :] == ["--devices", "h100:2", *ARGS]
    exported = dict(line[1].split("=", 1) for line in lines if line[0] == "export")
    assert exported["XLA_FLAGS"] == "--xla_gpu_enable_latency_hiding_scheduler=true --mine"
    assert exported["XLA_CLIENT_MEM_FRACTION"] == "0.92"
    assert exported["JAX_COMPILATION_CACHE_DIR"] == "/home/me/.cache/albert_jax"
    assert lines[-1][1:] == ["-m", "albert_jax.train", *ARGS]


def test_without_gpus_the_other_script_is_named(repo_root, fake_gpus):
    status, said, message = run(repo_root / "launch/multi_gpu.sh", "--dry-run", env=fake_gpus(""))
    assert (status, said) == (1, "")
    assert "launch/local.sh" in message


# --- Cloud TPU --------------------------------------------------------------------------------

GCLOUD = """#!/usr/bin/env bash
# Takes its answers to "list" and to a training command from files, a line each.
next() { head -n 1 "$1" && sed -i 1d "$1"; }
printf '%q ' "$@" >>"$LOG"
echo >>"$LOG"
case $* in
  *" list "*) next "$STATES" ;;
  *launch/local.sh*) exit "$(next "$ENDS")" ;;
esac
"""


@pytest.fixture
def tpu_pod(repo_root: Path, tmp_path: Path) -> Callable[..., tuple[int, list[list[str]]]]:
    """Runs the script with a gcloud that records; returns its status and gcloud's arguments."""

    def call(states: str, ends: str, *args: str) -> tuple[int, list[list[str]]]:
        executable(tmp_path / "gcloud", GCLOUD)
        files = {name: tmp_path / name.lower() for name in ("LOG", "STATES", "ENDS")}
        files["LOG"].write_text("")
        files["STATES"].write_text("\n".join(states.split(",")) + "\n")
        files["ENDS"].write_text("\n".join(ends.split(",")) + "\n")
        env = {name: str(path) for name, path in files.items()}
        env |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WAIT": "0", "NAME": "mine"}
        status, _, _ = run(repo_root / "launch/tpu_pod.sh", *args, env=env, timeout=60)
        return status, [shlex.split(line) for line in files["LOG"].read_text().splitlines()]

    return call


def verbs(calls: list[list[str]]) -> list[str]:
    """What each call of gcloud was for."""
    names = {"ssh": "ssh", "scp": "scp"}
    found = []
    for words in calls:
        verb = names.get(words[3], words[3])
        is_training = verb == "ssh" and "launch/local.sh" in words[-1]
        found.append("train" if is_training else verb)
    return found


PREPARE = ["ssh", "ssh", "scp", "ssh"]


def test_a_tpu_is_queued_for_and_trained_on(tpu_pod, tmp_path):
    status, calls = tpu_pod(",WAITING_FOR_RESOURCES,ACTIVE", "0", *ARGS)
    assert status == 0
    assert verbs(calls) == ["list", "create", "list", "list", *PREPARE, "train"]
    create, train = calls[1], calls[-1]
    assert create[:5] == ["compute", "tpus", "queued-resources", "create", "mine"]
    assert {"--node-id=mine", "--accelerator-type=v6e-16", "--spot"} <= set(create)
    assert "--worker=all" in train
    # The host's shell makes the same words of it.
    command = train[-1].removeprefix("--command=")
    assert command.startswith("cd /mnt/shared/albert_jax && launch/local.sh ")
    assert shlex.split(command)[4:] == ARGS


def test_a_tpu_that_was_taken_away_is_made_anew(tpu_pod):
    status, calls = tpu_pod("ACTIVE,SUSPENDED,SUSPENDED,,ACTIVE", "255,0", *ARGS)
    assert status == 0
    again = ["list", "list", "delete", "list", "create", "list", *PREPARE, "train"]
    assert verbs(calls) == ["list", *PREPARE, "train", *again]


@pytest.mark.parametrize(
    ("accelerator", "chips"),
    [("v5litepod-8", "v5e:8"), ("v5p-32", "v5p:16"), ("v4-8", "v4:4"), ("v6e-16", "v6e:16")],
)
def test_a_dry_run_names_the_chips_for_the_estimate(repo_root, accelerator, chips):
    script = repo_root / "launch/tpu_pod.sh"
    _, said, _ = run(script, "--dry-run", *ARGS, env={"TYPE": accelerator})
    assert f"albert_jax.estimate --devices {chips} " in said.splitlines()[0]


def test_an_error_of_the_run_itself_ends_it(tpu_pod):
    status, calls = tpu_pod("ACTIVE,ACTIVE", "3", *ARGS)
    assert status == 3
    assert verbs(calls) == ["list", *PREPARE, "train", "list"]


def test_a_dry_run_asks_google_nothing(repo_root, tpu_pod):
    assert tpu_pod("", "0", "--dry-run", *ARGS) == (0, [])
    _, said, _ = run(repo_root / "launch/tpu_pod.sh", "--dry-run", *ARGS)
    estimate, *lines = [shlex.split(line)[1:] for line in said.splitlines()]
    assert estimate[-len(ARGS) - 2 :] == ["--devices", "v6e:16", *ARGS]
    assert verbs(lines) == ["create", *PREPARE, "train"]
    _, said, _ = run(repo_root / "launch/tpu_pod.sh", "--dry-run", "delete")
    assert [line.split()[4] for line in said.splitlines()] == ["delete"]


# --- Kubernetes and Docker --------------------------------------------------------------------

# The fields that we use and their types; a list holds the type of its items, a tuple the values
# that are allowed. Source: kubernetes-sigs/jobset, config/components/crd/bases, and the
# reference of batch/v1 and core/v1.
_CONTAINER = {
    "name": str,
    "image": str,
    "args": [str],
    "env": [{"name": str, "value": str, "valueFrom": {"fieldRef": {"fieldPath": str}}}],
    "resources": {"limits": {"nvidia.com/gpu": int}},
    "volumeMounts": [{"name": str, "mountPath": str}],
}
_POD = {
    "restartPolicy": ("Never",),  # a pod failure policy needs it
    "terminationGracePeriodSeconds": int,
    "containers": [_CONTAINER],
    "volumes": [
        {
            "name": str,
            "persistentVolumeClaim": {"claimName": str},
            "emptyDir": {"medium": ("Memory",)},
        }
    ],
}
_ON_FAILURE = {
    "action": ("FailJob",),
    "onPodConditions": [{"type": ("DisruptionTarget",), "status": ("True",)}],
    "onExitCodes": {"containerName": str, "operator": ("In", "NotIn"), "values": [int]},
}
_JOB = {
    "parallelism": int,
    "completions": int,
    "completionMode": ("Indexed",),
    "backoffLimit": int,
    "podFailurePolicy": {"rules": [_ON_FAILURE]},
    "template": {"spec": _POD},
}
_RESTARTS = ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
JOBSET = {
    "apiVersion": ("jobset.x-k8s.io/v1alpha2",),
    "kind": ("JobSet",),
    "metadata": {"name": str},
    "spec": {
        "failurePolicy": {
            "maxRestarts": int,
            "rules": [
                {"name": str, "action": _RESTARTS, "onJobFailureReasons": [("PodFailurePolicy",)]}
            ],
        },
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": _JOB}}],
    },
}


def complaints(value: Any, schema: Any, path: str = "") -> Generator[str]:
    """Yields what is not as the schema says."""
    if isinstance(schema, dict) and isinstance(value, dict):
        for key, inner in value.items():
            if key in schema:
                yield from complaints(inner, schema[key], f"{path}/{key}")
            else:
                yield f"{path}/{key} is unknown"
    elif isinstance(schema, list) and isinstance(value, list):
        for i, inner in enumerate(value):
            yield from complaints(inner, schema[0], f"{path}/{i}")
    elif isinstance(schema, tuple):
        if value not in schema:
            yield f"{path} is {value!r}, none of {schema}"
    elif not (isinstance(schema, type) and type(value) is schema):
        yield f"{path} is {value!r}"


def test_jobset_has_the_fields_of_its_schema(repo_root):
    text = (repo_root / "launch/kubernetes.yaml").read_text()
    assert list(complaints(yaml.safe_load(text), JOBSET)) == []
    for right, wrong in (("replicas: 1", "replica: 1"), ('"True"', "true"), ("Indexed", "index")):
        assert right in text
        assert len(list(complaints(yaml.safe_load(text.replace(right, wrong)), JOBSET))) == 1


def test_jobset_fits_itself_and_the_repository(repo_root, monkeypatch):
    jobset = yaml.safe_load((repo_root / "launch/kubernetes.yaml").read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    assert spec["parallelism"] == spec["completions"] == int(env["JAX_NUM_PROCESSES"])
    name = jobset["metadata"]["name"]
    address, port = env["JAX_COORDINATOR_ADDRESS"].split(":")
    assert address == f"{name}-{job['name']}-0-0.{name}"
    assert 1024 < int(port) < 65536
    assert env["JAX_PROCESS_ID"] is None  # from the pod's number
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    codes = [rule.get("onExitCodes", {}) for rule in spec["podFailurePolicy"]["rules"]]
    assert codes[-1]["containerName"] == container["name"]
    assert "75" in (repo_root / "launch/slurm.sbatch").read_text()
    assert 75 in codes[-1]["values"]
    settings = dict(word.removeprefix("--").split("=", 1) for word in container["args"])
    monkeypatch.chdir(repo_root)
    overrides = [f"--{k}={v}" for k, v in settings.items() if k.startswith("config.")]
    assert load_config(settings["config"], overrides).data.path.startswith("/work/")


def test_image_holds_what_its_entrypoint_needs(repo_root, tmp_path, fake_gpus):
    """What .dockerignore lets through, at the place where the Dockerfile copies it to."""
    lines = (repo_root / ".dockerignore").read_text().splitlines()
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert "*" in lines
    image = tmp_path / "image"
    image.mkdir()
    for name in kept:
        source = repo_root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, image / name)
    text = (repo_root / "launch/Dockerfile").read_text()
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((image / source).exists() for source in sources.split())
    (entry,) = re.findall(r'^ENTRYPOINT \["(.+)"\]$', text, re.MULTILINE)
    env = fake_gpus("GPU 0: H100\n")
    status, said, _ = run(image / entry, "--dry-run", *ARGS, env=env)
    assert status == 0
    assert said.splitlines()[-1].startswith(f"{image}/.venv/bin/python -m albert_jax.train")
