"""The wheel works by itself: installed elsewhere, it prepares a corpus and trains on it."""

import sys
import sysconfig

import pytest
from support.commands import run
from support.texts import VOCAB_SIZE, write_corpus

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scripts(repo_root, tmp_path_factory):
    """Where the commands are of an environment that holds the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    done = run(*pip, "wheel", "-q", "--no-deps", "--wheel-dir", folder, repo_root)
    assert done[0] == 0, done[2]
    (wheel,) = folder.glob("*.whl")
    venv = folder / "venv"
    assert run(sys.executable, "-m", "venv", "--without-pip", venv)[0] == 0
    python = venv / "bin" / "python"
    done = run(*pip, "--python", python, "install", "-q", "--no-deps", "--no-index", wheel)
    assert done[0] == 0, done[2]
    # The packages of this environment, as a wheel's requirements would be; .pth files count only
    # in an environment's own folder, so the repository is not among them.
    (site,) = (venv / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin"


def test_the_package_is_the_wheels(scripts, tmp_path):
    code = "import albert_jax; print(albert_jax.__file__)"
    status, said, _ = run(scripts / "python", "-c", code, cwd=tmp_path)
    assert status == 0
    assert said.startswith(str(scripts.parent))
    status, said, _ = run(scripts / "albert-jax", "--version", cwd=tmp_path)
    assert (status, said) == (0, "0.1.0\n")


def test_a_corpus_is_prepared_and_trained_on(scripts, tmp_path):
    write_corpus(tmp_path / "texts.jsonl")
    command = scripts / "albert-jax"
    words = ["--input", "texts.jsonl", "--vocab_size", VOCAB_SIZE, "--seq_len", 32, 64]
    done = run(command, "prepare", *words, "--output", "rows", "--num_workers", 2, cwd=tmp_path)
    assert done[0] == 0, done[2]
    settings = {
        "data.path": "rows", "data.seq_len": 64, "data.num_workers": 1,
        "model.vocab_size": VOCAB_SIZE, "train.num_steps": 5, "train.batch_size": 4,
        "train.eval_every": 5, "train.checkpoint_every": 5, "optimizer.warmup_steps": 1,
    }  # fmt: skip
    words = [f"--config.{key}={value}" for key, value in settings.items()]
    done = run(command, "train", "--config", "tiny", "--workdir", "run", *words, cwd=tmp_path)
    assert done[0] == 0, done[2]
    assert (tmp_path / "run/checkpoints/5").is_dir()
    done = run(command, "evaluate", "--workdir", "run", cwd=tmp_path)
    assert done[0] == 0, done[2]
    assert '"step": 5' in done[1]
