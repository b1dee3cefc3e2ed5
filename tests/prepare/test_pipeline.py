"""The command as a whole: what it writes, that it repeats, and how it fails."""

import collections
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
import tensorflow_datasets as tfds
from support.pieces import english
from support.texts import VOCAB_SIZE, write_corpus

from albert_jax.checkpoints.formats.hf_tokenizer import write_tokenizer
from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.prepare import documents as incoming
from albert_jax.prepare import manifest
from albert_jax.prepare.__main__ import main
from albert_jax.prepare.pipeline import prepare
from albert_jax.prepare.sentences import split_sentences

BLOCK_CHARS = 20_000


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl")


@pytest.fixture(scope="module")
def model_file(vocabulary):
    return vocabulary


@pytest.fixture(autouse=True, scope="module")
def many_blocks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incoming, "BLOCK_CHARS", BLOCK_CHARS)
        yield


def files_of(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def read_rows(folder, split="train"):
    builder: Any = tfds.builder_from_directory(str(folder))
    source = builder.as_data_source(split)
    return [source[i] for i in range(len(source))]


COMMON: dict[str, Any] = {"seq_len": 64, "validation_fraction": 0.1, "num_workers": 1}


def with_changes(changes: dict[str, Any]) -> dict[str, Any]:
    return COMMON | changes


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, corpus_file, model_file):
    output = tmp_path_factory.mktemp("prepared") / "rows"
    manifest = prepare([corpus_file], output, tokenizer=model_file, **COMMON)
    return output, manifest


def test_manifest_tells_what_is_there(prepared, corpus_file, model_file):
    output, manifest = prepared
    assert json.loads((output / "manifest.json").read_text()) == manifest
    assert (output / "tokenizer.model").read_bytes() == model_file.read_bytes()
    assert (manifest["documents"], manifest["duplicates_dropped"]) == (180, 30)
    assert (manifest["seq_len"], manifest["max_chunks"], manifest["packing"]) == (64, 4, True)
    assert manifest["vocab_size"] == VOCAB_SIZE
    [source] = manifest["sources"]
    assert source["path"] == str(corpus_file)
    assert source["format"] == "jsonl"
    assert (source["first_document"], source["documents"]) == (0, 180)
    assert source["bytes"] == corpus_file.stat().st_size
    counts = np.zeros(VOCAB_SIZE, int)
    for split in ("train", "validation"):
        rows = read_rows(output, split)
        assert len(rows) == manifest["rows"][split] > 0
        assert sum(len(r["pieces"]) for r in rows) == manifest["pieces"][split]
        used = sum(len(r["pieces"]) + 3 * len(r["chunk_documents"]) for r in rows)
        assert math.isclose(manifest["fill"][split], used / 64 / len(rows))
        if split == "train":
            pieces = np.concatenate([r["pieces"] for r in rows])
            counts += np.bincount(pieces, minlength=VOCAB_SIZE)
    p = counts[counts > 0] / counts.sum()
    assert math.isclose(manifest["unigram_entropy"], -(p * np.log(p)).sum())
    assert {p.name for p in output.parent.iterdir()} == {"rows"}


def test_every_document_is_in_one_split_once(prepared, corpus_file):
    output, _ = prepared
    tokenizer = load_tokenizer(output / "tokenizer.model")
    texts = [json.loads(line)["text"] for line in corpus_file.read_text().splitlines()]
    first_number = {text: i for i, text in reversed(list(enumerate(texts)))}
    owners = {}
    found = {number: collections.Counter() for number in first_number.values()}
    for split in ("train", "validation"):
        for row in read_rows(output, split):
            ends = np.cumsum(row["chunk_sentences"])
            pieces = np.cumsum([0, *row["sentence_lengths"]])
            for number, a, b in zip(
                row["chunk_documents"].tolist(), [0, *ends[:-1]], ends, strict=True
            ):
                assert owners.setdefault(number, split) == split
                found[number].update(row["pieces"][pieces[a] : pieces[b]].tolist())
    for text, number in first_number.items():
        encoded = tokenizer.encode_batch(split_sentences(text.split("\n\n")))
        assert found[number] == collections.Counter(itertools.chain(*encoded))


def test_settings_change_the_rows(prepared, corpus_file, model_file, tmp_path):
    output, manifest = prepared
    changes = {
        "seed": 1, "packing": False, "short_seq_prob": 0.5, "keep_duplicates": True,
        "validation_fraction": 0.2, "seq_len": 32,
    }  # fmt: skip
    seen = {manifest["fingerprint"]}
    rows = [r["pieces"].tolist() for r in read_rows(output)]
    for name, value in changes.items():
        options = with_changes({"tokenizer": model_file, name: value})
        changed = prepare([corpus_file], tmp_path / name, **options)
        assert changed["fingerprint"] not in seen
        seen.add(changed["fingerprint"])
        assert [r["pieces"].tolist() for r in read_rows(tmp_path / name)] != rows
    kept = json.loads((tmp_path / "keep_duplicates" / "manifest.json").read_text())
    assert kept["duplicates_dropped"] == 0
    unpacked = read_rows(tmp_path / "packing")
    assert all(len(r["chunk_sentences"]) == 1 for r in unpacked)


def test_trains_a_vocabulary_reproducibly(corpus_file, tmp_path):
    for name in "ab":
        prepare([corpus_file], tmp_path / name, vocab_size=VOCAB_SIZE, **COMMON)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert load_tokenizer(tmp_path / "a" / "tokenizer.model").vocab_size == VOCAB_SIZE


def test_again_is_already_prepared_and_other_is_refused(
    prepared, corpus_file, model_file, tmp_path, capsys
):
    output, manifest = prepared
    before = files_of(output)
    assert prepare([corpus_file], output, tokenizer=model_file, **COMMON) == manifest
    assert "already prepared" in capsys.readouterr().err
    with pytest.raises(ValueError, match="prepared from other input or settings"):
        prepare([corpus_file], output, tokenizer=model_file, **with_changes({"seed": 3}))
    other = write_corpus(tmp_path / "other.jsonl", seed=9)
    with pytest.raises(ValueError, match="prepared from other input or settings"):
        prepare([other], output, tokenizer=model_file, **COMMON)
    assert files_of(output) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").touch()
    with pytest.raises(ValueError, match="exists but is not prepared data"):
        prepare([corpus_file], tmp_path / "full", tokenizer=model_file, **COMMON)
    with pytest.raises(ValueError, match="exists but is not prepared data"):
        prepare([corpus_file], corpus_file, tokenizer=model_file, **COMMON)
    (tmp_path / "empty").mkdir()
    prepare([corpus_file], tmp_path / "empty", tokenizer=model_file, **COMMON)


def test_errors_leave_nothing_behind(model_file, tmp_path):
    (tmp_path / "one.txt").write_text("One sentence.")
    output = tmp_path / "out" / "rows"
    with pytest.raises(ValueError, match="not enough for a train and a validation split"):
        prepare([tmp_path / "one.txt"], output, tokenizer=model_file, **COMMON)
    (tmp_path / "two.txt").write_text("Another sentence.")
    two = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for fraction, message in (
        (0.0001, "are in the validation split; raise"),
        (0.9999, "are in the train split; lower"),
    ):
        changed = with_changes({"validation_fraction": fraction})
        with pytest.raises(ValueError, match=message):
            prepare(two, output, tokenizer=model_file, **changed)
    with pytest.raises(ValueError, match="no text is left for the validation split"):
        prepare(two, output, validation=two[:1], tokenizer=model_file, **COMMON)
    good = write_corpus(tmp_path / "bad.jsonl")
    with open(good, "a") as f:
        f.write("not json\n")
    for workers in (1, 2):
        with pytest.raises(ValueError, match="not JSON"):
            prepare([good], output, tokenizer=model_file, **with_changes({"num_workers": workers}))
    assert list(output.parent.iterdir()) == []


def test_a_single_document_is_divided_between_the_splits(model_file, tmp_path):
    (tmp_path / "book.txt").write_text("\n\n".join(["tanos bured siled."] * 100))
    found = prepare([tmp_path / "book.txt"], tmp_path / "rows", tokenizer=model_file, **COMMON)
    assert found["is_divided"]
    assert found["documents"] == 1
    texts = {split: text_of(tmp_path / "rows", split) for split in ("train", "validation")}
    assert [text.count("tanos") for text in texts.values()] == [90, 10]


def text_of(folder, split):
    tokenizer = load_tokenizer(folder / "tokenizer.model")
    rows = read_rows(folder, split)
    return " ".join(
        tokenizer.decode(np.frombuffer(row["pieces"], np.uint16).tolist()) for row in rows
    )


def test_validation_text_of_its_own(model_file, corpus_file, tmp_path, monkeypatch):
    (tmp_path / "held_out.txt").write_text("paxia paxia luned luned. " * 9)
    (tmp_path / "extra.txt").write_text("ritos ritia. " * 9)
    monkeypatch.setenv("HOME", str(tmp_path))
    arguments = ["--input", str(corpus_file), "--input", "~/extra.txt", "--output", "~/rows"]
    arguments += ["--validation", "~/held_out.txt", "--tokenizer", str(model_file)]
    assert main([*arguments, "--seq_len", "64", "--num_workers", "2"]) == 0
    train, held_out = (text_of(tmp_path / "rows", split) for split in ("train", "validation"))
    assert "paxia paxia luned luned" in held_out
    assert "paxia paxia luned luned" not in train
    assert "ritos ritia" in train
    found = json.loads((tmp_path / "rows" / "manifest.json").read_text())
    assert found["settings"]["first_validation_source"] == 2
    assert main([*arguments, "--seq_len", "64", "--num_workers", "1"]) == 0  # already prepared


def test_removed_marks_are_counted(model_file, tmp_path, capsys):
    for n in range(9):
        (tmp_path / f"{n}.txt").write_text(f"Café number {n}. Zwei Bücher für {n} Mädchen.")
    arguments = ["--input", f"{tmp_path}/*.txt", "--output", str(tmp_path / "rows")]
    arguments += ["--tokenizer", str(model_file), "--validation_fraction=.3"]
    assert main([*arguments, "--num_workers=1"]) == 0
    assert "36 accents and other combining marks were removed" in capsys.readouterr().out


def test_a_vocabulary_that_cannot_be_exported_is_said_at_once(corpus_file, tmp_path, capsys):
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(["words and more words"] * 50),
        model_prefix=str(tmp_path / "bpe"),
        model_type="bpe",
        vocab_size=25,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        minloglevel=2,
    )
    arguments = ["--input", str(corpus_file), "--output", str(tmp_path / "rows")]
    arguments += ["--seq_len=64", "--num_workers=1", "--validation_fraction=.1", "--tokenizer"]
    assert main([*arguments, str(tmp_path / "bpe.model")]) == 0
    assert "bpe.model is not a Unigram model" in capsys.readouterr().err
    proto = (tmp_path / "bpe.model").read_bytes()
    with pytest.raises(ValueError, match="not a Unigram model"):
        write_tokenizer(english(proto), tmp_path / "hf")


# The remedies are tried: SentencePiece's own cannot be followed.
def test_the_remedy_for_a_vocabulary_that_does_not_fit_works(tmp_path, capsys):
    characters = [chr(0x4E00 + n) for n in range(300)]
    words = [a + b for a, b in itertools.product(characters[:150], characters[150:])]
    for n in range(20):
        text = "".join(words[(n * 7919 + k * k) % 1500 * 15] for k in range(2000))
        (tmp_path / f"{n}.txt").write_text(text)
    arguments = ["--input", f"{tmp_path}/*.txt", "--output", str(tmp_path / "rows")]
    arguments += ["--validation_fraction=.2", "--seq_len=64", "--num_workers=1"]
    for size in ("50", "9000"):
        assert main([*arguments, "--vocab_size", size]) == 1
        (remedy,) = re.findall(r"pass --vocab_size (\d+)", capsys.readouterr().err)
        assert main([*arguments, "--vocab_size", remedy]) == 0
        shutil.rmtree(tmp_path / "rows")


def test_long_lines_are_cut_between_sentences_and_nothing_is_lost():
    text = "今天天气很好。我们去公园吧！" * 2000 + "x" * 20_000 + "é no end " * 3000
    found = split_sentences([text])
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    assert found[:2] == ["今天天气很好。", "我们去公园吧！"]
    assert found.count("今天天气很好。") == 2000
    assert max(map(len, found)) <= 8000


# The command with blocks as small as here: work for all workers, and none of them busy for long.
SMALL_BLOCKS = f"""
import sys
from albert_jax.prepare import __main__ as prepare
from albert_jax.prepare import documents
documents.BLOCK_CHARS = {BLOCK_CHARS}
sys.exit(prepare.main())
"""


def command(*arguments, small_blocks=True):
    run = ["-c", SMALL_BLOCKS] if small_blocks else ["-m", "albert_jax.prepare"]
    return [sys.executable, "-W", "error", *run, *map(str, arguments)]


def test_command_with_workers_writes_the_same_bytes(
    corpus_file, model_file, prepared, tmp_path, repo_root
):
    arguments = command(
        "--input", corpus_file, "--output", tmp_path / "x", "--tokenizer", model_file,
        "--seq_len", 64, "--validation_fraction", 0.1, "--num_workers", 3,
    )  # fmt: skip
    done = subprocess.run(arguments, cwd=repo_root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "180 documents (30 duplicates)" in done.stdout
    assert "\r" not in done.stderr
    assert files_of(tmp_path / "x") == files_of(prepared[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "/none", "--tokenizer", "{model}"], "error: input /none: no such file"),
        (["--input", "{corpus}", "--tokenizer", "/none"], "error: tokenizer /none: no such file"),
        (
            ["--input", "{corpus}", "--vocab_size", "60000"],
            "error: vocab_size 60000: this text has too few",
        ),
        (["--input", "{corpus}", "--seq_len", "4"], "error: seq_len 4: must be"),
        (["--input", "{corpus}", "--validation_fraction", "0"], "error: validation_fraction 0.0"),
        (["--input", "{corpus}", "--num_workers", "0"], "error: num_workers 0: must be"),
        (["--input", "{corpus}", "--format", "wiki"], "text outside <doc>"),
    ],
)
def test_user_errors_are_one_line(arguments, message, corpus_file, model_file, tmp_path, capsys):
    filled = [a.format(model=model_file, corpus=corpus_file) for a in arguments]
    assert main([*filled, "--output", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if not line.startswith("reading ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as f:
                    if int(f.read().rsplit(")", 1)[1].split()[1]) == pid:
                        found.append(int(entry))
            except OSError:
                pass
    return found


def start_slow(corpus, model, output, repo_root, small_blocks):
    """Starts a run and returns it when its workers are at work, with their process ids."""
    arguments = command(
        "--input", corpus, "--output", output, "--tokenizer", model, "--num_workers", 2,
        "--validation_fraction", 0.1, small_blocks=small_blocks,
    )  # fmt: skip
    process = subprocess.Popen(
        arguments, cwd=repo_root, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while len(workers := children_of(process.pid)) < 2 or not list(output.parent.glob(".rows*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process, workers


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("long") / "corpus.jsonl", documents=10_000)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux: no /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_killed_runs_leave_no_output(
    how, long_corpus, corpus_file, model_file, tmp_path, repo_root
):
    output = tmp_path / "out" / "rows"
    small_blocks = how != signal.SIGKILL  # one of them is the command as users run it
    process, workers = start_slow(long_corpus, model_file, output, repo_root, small_blocks)
    if how == signal.SIGINT:  # Ctrl-C in a terminal reaches the workers too
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    stderr = process.communicate(timeout=60)[1].decode()
    assert process.returncode == (-how if how == signal.SIGKILL else 130), stderr
    assert not output.exists()
    left = list(output.parent.iterdir())
    if how == signal.SIGKILL:
        assert len(left) == 1
    else:
        assert left == []
        assert "Traceback" not in stderr
    deadline = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{pid}") for pid in workers):
        assert time.monotonic() < deadline, "workers outlive the command"
        time.sleep(0.05)
    prepare([corpus_file], output, tokenizer=model_file, **COMMON)
    assert [p.name for p in output.parent.iterdir()] == ["rows"]


def test_a_live_run_keeps_its_temporary_folder(tmp_path):
    other = tmp_path / f".rows.tmp-{manifest.socket.gethostname()}-{os.getppid()}"
    elsewhere = tmp_path / ".rows.tmp-another.host-1"
    other.mkdir()
    elsewhere.mkdir()
    with manifest.new_folder(tmp_path / "rows") as folder:
        assert folder.is_dir()
        assert other.is_dir()
        assert elsewhere.is_dir()
    assert sorted(tmp_path.iterdir()) == sorted([other, elsewhere, tmp_path / "rows"])


def test_no_jax(repo_root):
    code = (
        "import sys, albert_jax.prepare.__main__, tensorflow_datasets;"
        "assert not {'jax', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=repo_root, check=True)
