"""Rows made with Apache Beam are those made on one machine, byte for byte, in any mode."""

import gzip
import json
import subprocess
from typing import Any

import pytest
from support.texts import write_corpus, write_vocabulary

from albert_jax.prepare import documents as incoming
from albert_jax.prepare import row_writer
from albert_jax.prepare.pipeline import prepare

pytestmark = pytest.mark.slow

# Many blocks and shards, and in the process that runs the jobs itself also many ledgers.
SIZES = {"BLOCK_CHARS": 20_000, "ROWS_PER_SHARD": 300, "LEDGER_DOCUMENTS": 50}
COMMAND = f"""
import sys
from albert_jax.prepare import beam as prepare_beam
from albert_jax.prepare import beam_ledgers, documents, row_writer
documents.BLOCK_CHARS = {SIZES["BLOCK_CHARS"]}
row_writer.ROWS_PER_SHARD = {SIZES["ROWS_PER_SHARD"]}
if "multi_processing" not in str(sys.argv):
    beam_ledgers.LEDGER_DOCUMENTS = {SIZES["LEDGER_DOCUMENTS"]}
sys.exit(prepare_beam.main())
"""
TWO_PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Duplicates within files and across, documents and files without text, compression."""
    folder = tmp_path_factory.mktemp("corpus")
    first = write_corpus(folder / "a.jsonl").read_text()
    second = write_corpus(folder / "b.jsonl", seed=1).read_text()
    empty = json.dumps({"text": " "}) + "\n"
    repeats = first[: len(first) // 2].rpartition("\n")[0] + "\n" + empty + second + empty
    third = write_corpus(folder / "c.jsonl", documents=40, seed=2, repeat=1).read_text()
    (folder / "c.jsonl").unlink()
    (folder / "c.jsonl.gz").write_bytes(gzip.compress((repeats + third).encode()))
    (folder / "d.jsonl").write_text(first)  # nothing of it stays
    (folder / "empty.txt").touch()
    (folder / "e.txt").write_text(json.loads(second.splitlines()[0])["text"] + "\n\nAnd morer.")
    return folder


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    return write_vocabulary(tmp_path_factory.mktemp("vocab") / "given.model")


def run(repo_root, *arguments):
    # Beam has an environment of its own, which tests/run.sh --all makes.
    python = repo_root / ".venv-beam/bin/python"
    return subprocess.run(
        [python, "-c", COMMAND, *map(str, arguments)],
        cwd=repo_root, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def files_of(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("keep_duplicates", "beam_options"), [(False, ()), (True, ()), (False, TWO_PROCESSES)]
)
def test_same_bytes(
    keep_duplicates, beam_options, corpus, model_file, tmp_path, monkeypatch, repo_root
):
    monkeypatch.setattr(incoming, "BLOCK_CHARS", SIZES["BLOCK_CHARS"])
    monkeypatch.setattr(row_writer, "ROWS_PER_SHARD", SIZES["ROWS_PER_SHARD"])
    options: dict[str, Any] = {"seq_len": 64, "validation_fraction": 0.1, "num_workers": 1}
    manifest = prepare(
        [corpus], tmp_path / "here", tokenizer=model_file, keep_duplicates=keep_duplicates,
        **options,
    )  # fmt: skip
    assert manifest["rows"]["train"] > 2 * SIZES["ROWS_PER_SHARD"]
    assert (manifest["duplicates_dropped"] > 300) is not keep_duplicates
    done = run(
        repo_root, "--input", corpus, "--tokenizer", model_file, "--output", tmp_path / "beam",
        "--seq_len", 64, "--validation_fraction", 0.1,
        *["--keep_duplicates"] * keep_duplicates, "--", *beam_options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "here")


@pytest.mark.parametrize(
    ("text", "message"), [("not json\n", "bad.jsonl:1: not JSON"), ("\n", "contains no text")]
)
def test_errors_leave_nothing_behind(text, message, model_file, tmp_path, repo_root):
    (tmp_path / "bad.jsonl").write_text(text)
    output = tmp_path / "out" / "rows"
    done = run(
        repo_root, "--input", tmp_path / "bad.jsonl", "--tokenizer", model_file,
        "--output", output,
    )  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr
    assert list(output.parent.iterdir()) == []
