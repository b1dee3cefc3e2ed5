"""The shell scripts and what they install: environment, dry runs, lock files."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

SCRIPTS = ("launch/local.sh", "tests/run.sh", ".ci/run")
LOCKS = ("requirements.txt", "tests/requirements.txt", "tests/peers.txt")
# Where the scripts are tried out, the package needs nothing.
PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "albert_jax"
version = "1"
scripts = { albert-jax = "albert_jax:main" }

[tool.hatch.build.targets.wheel]
dev-mode-dirs = ["."]
"""


def run(*command, env=None, **options):
    """Runs a command; returns its exit status, output and messages."""
    keep = {k: v for k, v in os.environ.items() if k not in {"PYTHON", "ACCELERATOR", "BASH_ENV"}}
    done = subprocess.run(
        [str(c) for c in command],
        env=keep | (env or {}),
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    return done.returncode, done.stdout, done.stderr


def interpreter(path, says):
    """Writes a stand-in for a Python that answers the question of environment.sh with `says`."""
    path.write_text(
        f"#!/bin/sh\n{f'echo {says}' if says else 'echo no version set >&2; exit 127'}\n"
    )
    path.chmod(0o755)


@pytest.fixture(scope="module")
def tree(repo_root, tmp_path_factory):
    """A copy of the scripts whose lock files hold nothing, so that installing is quick."""
    top = tmp_path_factory.mktemp("with space") / "tree"
    for folder in ("launch", "tests"):
        (top / folder).mkdir(parents=True)
    for lock in LOCKS:
        (top / lock).write_text("# nothing\n")
    (top / "pyproject.toml").write_text(PYPROJECT)
    (top / "albert_jax").mkdir()
    (top / "albert_jax/__init__.py").write_text("def main(): print('here')\n")
    shutil.copy(repo_root / "launch" / "environment.sh", top / "launch")
    return top


def make_environment(tree, *files, **env):
    """Calls make_environment in `tree`; returns its exit status and messages."""
    call = 'set -euo pipefail; source "$0"; make_environment "$@"'
    status, _, said = run("bash", "-c", call, tree / "launch/environment.sh", *files, env=env)
    return status, said


def test_shellcheck_is_content(repo_root):
    shellcheck = Path(sys.executable).parent / "shellcheck"
    files = [*SCRIPTS, "launch/environment.sh", "benchmarks/fine_tuning.sh"]
    assert run(shellcheck, "--external-sources", *files, cwd=repo_root) == (0, "", "")
    assert all(os.access(repo_root / script, os.X_OK) for script in SCRIPTS)


def test_newest_interpreter_that_runs_is_chosen(repo_root, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    interpreter(first / "python3.13", None)  # a shim that only complains
    interpreter(first / "python3.12", None)
    interpreter(second / "python3.12", "12 /second")
    interpreter(first / "python3.11", "11 /first")
    interpreter(first / "python3", "12 /other")
    path = f"{first}:{second}:/usr/bin:/bin"
    call = "source launch/environment.sh; newest_python"
    assert run("bash", "-c", call, env={"PATH": path}, cwd=repo_root)[1] == "12 /second\n"


def test_without_an_interpreter_the_message_tells_what_to_do(repo_root, tmp_path):
    call = "source launch/environment.sh; PATH=$0; newest_python"
    status, said, message = run("bash", "-c", call, tmp_path, cwd=repo_root)
    assert (status, said) == (1, "")
    assert "3.11 to 3.13" in message
    assert "PYTHON=" in message


@pytest.mark.parametrize(
    ("driver", "expected"), [("580.65.06", "cuda13"), ("550.54", "cuda12"), ("470.1", "cpu")]
)
def test_accelerator_follows_the_driver(repo_root, tmp_path, driver, expected):
    interpreter(tmp_path / "nvidia-smi", driver)
    call = "source launch/environment.sh; choose_accelerator"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert run("bash", "-c", call, env=env, cwd=repo_root)[1] == f"{expected}\n"


@pytest.mark.slow
def test_environment_is_made_once_and_mended(tree):
    env = {"PYTHON": sys.executable, "ACCELERATOR": "cpu"}
    status, said = make_environment(tree, "requirements.txt", **env)
    assert (status, said.count("making .venv")) == (0, 1)
    assert make_environment(tree, "requirements.txt", **env) == (0, "")
    assert make_environment(tree, "requirements.txt") == (0, "")

    # The package is there from anywhere, and so is its command, also under a new name.
    assert run(tree / ".venv/bin/albert-jax", cwd="/") == (0, "here\n", "")
    (tree / "pyproject.toml").write_text(PYPROJECT.replace("albert-jax =", "other ="))
    status, said = make_environment(tree, "requirements.txt")
    assert (status, "making" in said, "installing" in said) == (0, False, True)
    assert run(tree / ".venv/bin/other", cwd="/") == (0, "here\n", "")
    assert not (tree / ".venv/bin/albert-jax").exists()

    # More is added to it, and then it serves both.
    status, said = make_environment(tree, *LOCKS)
    assert (status, "making" in said, "installing" in said) == (0, False, True)
    assert make_environment(tree, "requirements.txt") == (0, "")

    # A changed lock file is installed.
    (tree / LOCKS[1]).write_text("# still nothing\n")
    status, said = make_environment(tree, *LOCKS)
    assert (status, "making" in said, "installing" in said) == (0, False, True)

    # What cannot be had leaves it alone.
    for wrong in ({"PYTHON": "/bin/false"}, {"ACCELERATOR": "abacus"}):
        status, said = make_environment(tree, *LOCKS, **wrong)
        assert status == 1
        assert next(iter(wrong.values())) in said
    assert make_environment(tree, *LOCKS) == (0, "")


@pytest.mark.slow
def test_half_made_environment_is_made_again_by_one_of_many_callers(tree):
    shutil.rmtree(tree / ".venv", ignore_errors=True)
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "python").symlink_to("/nowhere/python")
    call = 'source "$0"; for i in 1 2 3; do make_environment requirements.txt & done; wait'
    env = {"PYTHON": sys.executable, "ACCELERATOR": "cpu"}
    status, _, said = run("bash", "-c", call, tree / "launch/environment.sh", env=env)
    assert status == 0
    assert said.count("replacing a half-made .venv") == 1
    assert said.count("ready") == 1
    assert run(tree / ".venv/bin/python", "-m", "pip", "--version")[0] == 0


def test_dry_run_prints_the_two_commands_of_the_default(repo_root, tmp_path):
    folder = tmp_path / "launch"
    shutil.copytree(repo_root / "launch", folder)
    _, said, message = run(folder / "local.sh", "--dry-run", cwd="/")
    assert message == ""
    python = f"{tmp_path}/.venv/bin/python"
    prepare, train = (line for line in said.splitlines() if " -m albert_jax." in line)
    assert prepare == (
        f"{python} -m albert_jax.prepare"
        " --input python-docs --output data/python-docs --vocab_size 8000 --seq_len 32 128"
        " --validation_fraction 0.02"
    )
    assert train == f"{python} -m albert_jax.train --config configs/tiny.py --workdir runs/tiny"
    assert f"cd {tmp_path}" in said
    assert not (tmp_path / ".venv").exists()

    (tmp_path / "data/python-docs").mkdir(parents=True)
    (tmp_path / "data/python-docs/manifest.json").write_text("{}")
    assert "prepare" not in run(folder / "local.sh", "--dry-run")[1]


def test_dry_run_passes_arguments_on_unchanged(repo_root):
    arguments = ["--workdir", "a b", "--config.train.seed=3", ""]
    _, said, _ = run(repo_root / "launch/local.sh", "--dry-run", *arguments, cwd="/")
    assert "cd " not in said
    last = said.splitlines()[-1]
    quoted = run("bash", "-c", f"printf '%s\\n' {last.partition('albert_jax.train ')[2]}")[1]
    assert quoted.splitlines() == arguments


def requirements(path):
    """Yields the requirements of a lock file that hold for this Python and platform."""
    for line in path.read_text().splitlines():
        if line and not line.lstrip().startswith(("#", "-")):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


@pytest.mark.parametrize(
    ("locks", "names"), [(LOCKS, ("test", "peers", "tf")), (("tests/beam.txt",), ("beam",))]
)
def test_locks_satisfy_pyproject(repo_root, locks, names):
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    pins = {}
    for lock in locks:
        for pin in requirements(repo_root / lock):
            (version,) = pin.specifier
            assert version.operator == "=="
            assert pin.name not in pins
            pins[pin.name] = version.version
    assert "albert_jax[tf]" in extras["peers"]
    wanted_by_all = project["dependencies"] + [line for name in names for line in extras[name]]
    for wanted in map(Requirement, wanted_by_all):
        if wanted.name == "albert_jax" or (wanted.marker and not wanted.marker.evaluate()):
            continue
        assert wanted.specifier.contains(pins[wanted.name.lower().replace("_", "-")]), wanted


def test_extras_for_accelerators_are_those_of_jax(repo_root):
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    provided = set(metadata.metadata("jax").get_all("Provides-Extra") or [])
    for name in ("gpu", "gpu-cuda12", "tpu"):
        (wanted,) = map(Requirement, extras[name])
        assert wanted.name == "jax"
        assert wanted.extras <= provided


def test_locks_name_no_machine(repo_root):
    for lock in (*LOCKS, "tests/beam.txt"):
        text = (repo_root / lock).read_text()
        assert not re.search(r"://|--(extra-)?index|--find-links|(^|\s)/\w", text, re.MULTILINE)


def test_scripts_and_pyproject_agree_on_python(repo_root):
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    script = (repo_root / "launch/environment.sh").read_text()
    oldest, newest = (
        int(re.findall(rf"^{n}=(\d+)$", script, re.M)[0]) for n in ("OLDEST", "NEWEST")
    )
    assert project["requires-python"] == f">=3.{oldest},<3.{newest + 1}"
