"""Which tests run where: tests/run.sh, and what tests/conftest.py makes of marks and skips."""

import os
import shutil
import sys

import pytest
from support.commands import executable, run

ENVIRONMENT = """
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
make_environment() { echo "${VENV##*/}: $*"; }
"""
PYTHON = """#!/bin/bash
shift 8 # -m pytest and what all runs have
echo "$@"
exit $(sed -n "s/^$(grep -o -- '--peer [a-z]*' <<<"$@") //p" "$CODES")
"""


@pytest.fixture
def tiers(repo_root, tmp_path):
    """Runs tests/run.sh where pytest only tells what it was asked for, with code `peer CODE`."""
    for folder in ("launch", "tests", ".venv/bin", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(repo_root / "tests/run.sh", tmp_path / "tests")
    (tmp_path / "launch/environment.sh").write_text(ENVIRONMENT)
    executable(tmp_path / ".venv/bin/python", PYTHON)
    executable(tmp_path / "bin/curl", "#!/bin/sh\nexit 6\n")

    def call(*words, codes=""):
        (tmp_path / "codes").write_text(codes)
        env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "CODES": str(tmp_path / "codes")}
        status, said, _ = run(tmp_path / "tests/run.sh", *words, env=env)
        return status, said.splitlines()

    return call


def test_quick_tests_need_the_small_environment_alone(tiers):
    made = ".venv: requirements.txt tests/requirements.txt"
    assert tiers("a.py", "-x") == (0, [made, "-m not slow and not nightly a.py -x"])


@pytest.mark.parametrize(
    ("word", "tier"), [("--all", "slow and not nightly"), ("--nightly", "nightly")]
)
def test_each_peer_has_a_run_of_its_own(word, tier, tiers):
    status, said = tiers(word, "-x")
    assert status == 0
    assert said[:2] == [
        ".venv-beam: tests/beam.txt",
        ".venv: requirements.txt tests/requirements.txt tests/peers.txt",
    ]
    peers = ("torch", "tensorflow", "none")
    assert said[2:] == [f"-m {tier} --peer {peer} -x" for peer in peers]


@pytest.mark.parametrize(
    ("codes", "status"),
    [((1, 0, 0), 1), ((0, 0, 2), 2), ((5, 5, 0), 0), ((5, 1, 5), 1), ((5, 5, 5), 5)],
)
def test_a_failure_counts_and_the_other_runs_are_made(codes, status, tiers):
    peers = ("torch", "tensorflow", "none")
    lines = [f"--peer {peer} {code}" for peer, code in zip(peers, codes, strict=True)]
    found, said = tiers("--all", codes="\n".join(lines) + "\n")
    assert (found, len(said)) == (status, 5)


TORCH = (
    "import pytest\nimport torch\n\npytestmark = [pytest.mark.torch]\n\ndef test_torch(): pass\n"
)
TENSORFLOW = TORCH.replace("torch", "tensorflow")
OTHERS = """
import pytest

def test_plain(): pass

def test_machine(): pytest.skip("needs a TPU")

@pytest.mark.xfail(strict=True)
def test_expected(): assert False

@pytest.mark.torch
def test_marked():
    import torch
"""
UNMARKED = """
import pytest

def test_unmarked():
    import torch

def test_unfinished(): pytest.skip("later")

@pytest.mark.skipif(True, reason="does not work")
def test_broken(): pass
"""


@pytest.fixture
def project(repo_root, tmp_path):
    """Runs pytest on files; returns how the tests ended."""
    shutil.copy(repo_root / "tests/conftest.py", tmp_path)
    markers = "markers =\n  torch\n  tensorflow\n  nightly\n"
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {repo_root}/tests\n{markers}")
    for peer in ("torch", "tensorflow"):
        (tmp_path / f"{peer}.py").touch()

    def call(files, *words):
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", *words]
        _, said, _ = run(*command, cwd=tmp_path)
        ends = [line.split(" - ")[0].split() for line in said.splitlines()]
        return {w[1].partition("::")[2]: w[0] for w in ends if len(w) == 2 and "::" in w[1]}

    return call


@pytest.mark.slow
@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("none", {"test_plain": "PASSED", "test_expected": "XFAIL"}),
        ("torch", {"test_torch": "PASSED", "test_marked": "PASSED"}),
        ("tensorflow", {"test_tensorflow": "PASSED"}),
    ],
)
def test_a_run_has_the_tests_of_one_peer(peer, expected, project):
    files = {"test_a.py": TORCH, "test_b.py": TENSORFLOW, "test_c.py": OTHERS}
    assert project(files, "--peer", peer) == expected
    # Also where the files are named.
    assert project(files, "--peer", peer, *files) == expected


@pytest.mark.slow
def test_a_missing_mark_and_unexplained_skips_fail(project):
    expected = {"test_unmarked": "FAILED", "test_unfinished": "FAILED", "test_broken": "ERROR"}
    assert project({"test_a.py": UNMARKED}) == expected
