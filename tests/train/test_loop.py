"""Whole runs: they learn, resume exactly, refuse what is not theirs, and leave what they say."""

import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from support.pieces import train_tokenizer
from support.runs import assert_same_end, numbers, state_of
from support.tiny_runs import trained_settings, write_config

import albert_jax
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.read import read
from albert_jax.config import Config, config_from_dict
from albert_jax.convert import main as convert
from albert_jax.prepare.pipeline import prepare
from albert_jax.train import make_experiment
from albert_jax.train.curves import read_metrics
from albert_jax.train.loop import train

STEPS = 12
CONSONANTS = ("bcdfghjk", "lmnprstvwxyz")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small prepared corpus of made-up sentences whose words follow one another."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    heads, tails = ([a + b for a in letters for b in "aeiou"] for letters in CONSONANTS)
    words = [head + tail for head in heads for tail in tails][::37][:24]
    texts = []
    for _ in range(300):
        sentences = []
        for _ in range(rng.integers(3, 9)):
            start, length = rng.integers(len(words)), rng.integers(6, 14)
            run = [words[(start + i) % len(words)] for i in range(length)]
            sentences.append(" ".join(run).capitalize() + ".")
        texts.append(json.dumps({"text": " ".join(sentences)}))
    (folder / "texts.jsonl").write_text("\n".join(texts))
    prepare(
        [str(folder / "texts.jsonl")],
        folder / "rows",
        vocab_size=48,
        seq_len=64,
        validation_fraction=0.2,
        num_workers=1,
    )
    return folder / "rows"


@pytest.fixture
def settings(rows: Path) -> Callable[..., dict[str, Any]]:
    return functools.partial(trained_settings, rows)


@pytest.fixture
def make_config(settings: Callable[..., dict[str, Any]]) -> Callable[..., Config]:
    return lambda **groups: config_from_dict(settings(**groups))


@pytest.fixture(scope="module")
def whole(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run that never stopped; see `settings` for what it was made with."""
    return Path(shutil.copytree(trained_run, tmp_path_factory.mktemp("whole") / "run"))


def test_a_run_leaves_what_the_readme_says(whole):
    assert {p.name for p in whole.iterdir()} == {
        ".lock",
        "config.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "curves.png",
    }
    lines = read_metrics(whole / "metrics.jsonl")
    steps = [(line["step"], line["split"]) for line in lines]
    expected = [(3, "train"), (6, "train"), (6, "validation"), (9, "train"), (12, "train")]
    assert steps == [*expected, (12, "validation")]
    keys = "loss mlm_loss mlm_accuracy sop_loss sop_accuracy learning_rate grad_norm"
    assert set(keys.split()) | {"tokens_per_second", "mfu"} <= lines[0].keys()
    assert lines[0]["mfu"] is None  # the peak of a CPU is unknown
    assert lines[0]["learning_rate"] == pytest.approx(0.01)
    record = json.loads((whole / "config.json").read_text())
    assert record["config"]["model"]["hidden_size"] == 32
    assert record["versions"]["jax"] == jax.__version__
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((whole / "tensorboard").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("stop", [4, 8])
def test_a_resumed_run_is_bit_identical(tmp_path, make_config, whole, stop):
    """Stopped at a checkpoint that falls between two logged steps."""
    half = tmp_path / "half"
    experiment = make_experiment(make_config(), half)
    stop_after(experiment, stop)
    assert max(line["step"] for line in read_metrics(half / "metrics.jsonl")) <= stop
    train(make_experiment(make_config(), half))
    assert_same_end(half, whole, make_config())


@pytest.mark.slow
@pytest.mark.parametrize(
    "formats",
    [["orbax"], pytest.param(["tf", "orbax"], marks=pytest.mark.tensorflow)],
    ids=" ".join,
)
def test_a_run_goes_on_from_converted_weights(tmp_path, make_config, settings, whole, formats):
    """With LAMB's moments on the way, by the command line, to the same bits."""
    write_config(tmp_path / "some.py", settings())
    source = [str(whole), "--step", "4"]
    for i, name in enumerate(formats):
        output = str(tmp_path / f"{i}_{name}")
        config = ["--config", str(tmp_path / "some.py")] if name == "orbax" else []
        assert convert(["--input", *source, "--output", output, "--to", name, *config]) == 0
        source = [output]
    converted = Path(source[0])
    experiment = make_experiment(make_config(), converted)
    record = json.loads((converted / "config.json").read_text())
    assert record["data_fingerprint"]  # the run has met its data
    train(experiment)
    ours, others = (state_of(run, make_config(), STEPS) for run in (converted, whole))
    for path, array in others.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
    assert numbers(converted)[-1] == numbers(whole)[-1]  # the held-out losses


@pytest.mark.slow
def test_a_run_begins_with_the_weights_of_another(tmp_path, make_config, whole):
    """Exported to transformers' format, without the sentence order head."""
    model = read(whole)
    params = {part: tree for part, tree in model.params.items() if part != "sop"}
    write_hf(model._replace(params=params, kind="masked_lm"), tmp_path / "hf")
    config = make_config(
        model={"hidden_dropout_prob": 0.0}, train={"eval_every": 1, "num_steps": 3}
    )
    experiment = make_experiment(
        dataclasses.replace(config, init_from=str(tmp_path / "hf")), tmp_path / "run"
    )
    train(experiment)
    first = next(n for n in numbers(tmp_path / "run") if n["split"] == "validation")
    trained = numbers(whole)[-1]
    # A step at a rate of 0, the warmup's first, changes nothing: as held out as the other's end.
    assert first["mlm_loss"] == pytest.approx(trained["mlm_loss"], abs=1e-5)
    assert first["sop_loss"] != pytest.approx(trained["sop_loss"], abs=1e-3)


@pytest.mark.slow
def test_a_run_converted_without_moments_begins_with_its_weights(
    tmp_path, settings, make_config, whole
):
    changes = {"model": {"hidden_dropout_prob": 0.0}, "train": {"eval_every": 1, "num_steps": 3}}
    write_config(tmp_path / "some.py", settings(**changes))
    ways = ([whole, "hf"], [tmp_path / "hf", "orbax", "--config", tmp_path / "some.py"])
    for source, to, *more in ways:
        command = ["--input", source, "--output", tmp_path / to, "--to", to, *more]
        assert convert([str(word) for word in command]) == 0
    train(make_experiment(make_config(**changes), tmp_path / "orbax"))
    first = next(n for n in numbers(tmp_path / "orbax") if n["split"] == "validation")
    trained = numbers(whole)[-1]
    for loss in ("mlm_loss", "sop_loss"):
        assert first[loss] == pytest.approx(trained[loss], abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"num_attention_heads": 2}}, "num_attention_heads is 4, but this run has 2"),
        ({"model": {"share": "none"}}, "share is 'all', but this run has 'none'"),
    ],
)
def test_a_run_does_not_begin_with_another_model(tmp_path, make_config, whole, changes, message):
    config = dataclasses.replace(make_config(**changes), init_from=str(whole))
    with pytest.raises(ValueError, match=message):
        make_experiment(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_may_have_more_positions_than_its_start(tmp_path, make_config, whole, capsys):
    known = make_config().model.max_position_embeddings
    longer = {"max_position_embeddings": 2 * known}
    config = make_config(model=longer, train={"num_steps": 3, "checkpoint_every": 1})
    train(make_experiment(dataclasses.replace(config, init_from=str(whole)), tmp_path / "run"))
    found = read(tmp_path / "run", step=1).params  # a step at a rate of 0, the warmup's first
    given = read(whole).params
    before, after = (p["embeddings"]["position_embed"]["embedding"] for p in (given, found))
    np.testing.assert_array_equal(after, np.tile(before, (2, 1)))
    said = f"positions {known} to {2 * known - 1} begin as copies of the first {known}"
    assert said in capsys.readouterr().out
    config = make_config(model={"max_position_embeddings": 64}, data={"seq_len": 64})
    shorter = dataclasses.replace(config, init_from=str(tmp_path / "run"))
    with pytest.raises(ValueError, match=f"max_position_embeddings is {2 * known}, but this run"):
        make_experiment(shorter, tmp_path / "shorter")


def test_more_steps_are_refused_with_ways_that_work(tmp_path, settings, make_config, whole):
    more = {"train": {"num_steps": 14}}
    with pytest.raises(
        ValueError, match=r"config\.init_from=.*; or go on from its last step"
    ) as e:
        make_experiment(make_config(**more), whole)
    file = write_config(tmp_path / "some.py", settings())
    (words,) = re.findall(r"convert (--input .*), then train", str(e.value))
    words = words.replace("CONFIG", str(file)).replace("NEW", str(tmp_path / "new")).split()
    assert convert(words) == 0
    train(make_experiment(make_config(**more), tmp_path / "new"))
    assert {n["step"] for n in numbers(tmp_path / "new")} == {14}


def test_a_run_does_not_begin_with_another_vocabulary(tmp_path, make_config, whole):
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    train_tokenizer(["a few words of another text"] * 9, other / "tokenizer.model", 27)
    with pytest.raises(ValueError, match=r"token 1[0-9] is .*; prepare the data with"):
        make_experiment(dataclasses.replace(make_config(), init_from=str(other)), tmp_path / "run")
    (other / "tokenizer.model").unlink()
    with pytest.raises(ValueError, match="came without a vocabulary"):
        make_experiment(dataclasses.replace(make_config(), init_from=str(other)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class StopError(Exception):
    pass


def stop_after(experiment: Any, step: int) -> None:
    """Trains, and fails when the batch after `step` is asked for."""

    def batches(first: int) -> Any:
        for number, batch in enumerate(experiment.train_batches(first), first):
            if number == step:
                raise StopError
            yield batch

    with pytest.raises(StopError):
        train(experiment._replace(train_batches=batches))


@pytest.mark.slow
def test_a_killed_process_resumes_bit_identical(tmp_path, repo_root, settings, make_config, whole):
    """SIGKILL right after the first checkpoint, in a real process."""
    write_config(tmp_path / "some.py", settings())
    workdir = tmp_path / "killed"
    command = [sys.executable, "-m", "albert_jax.train", "--config", str(tmp_path / "some.py")]
    command += ["--workdir", str(workdir)]
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "PYTHONPATH": str(repo_root)}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    checkpoints = workdir / "checkpoints"
    while time.monotonic() < deadline:
        if checkpoints.is_dir() and any(path.name.isdigit() for path in checkpoints.iterdir()):
            break
        assert process.poll() is None, process.stdout and process.stdout.read().decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "resumes after step" in result.stdout
    assert "unigram entropy" in result.stdout
    assert_same_end(workdir, whole, make_config())


def test_a_finished_run_started_again_does_nothing(whole, make_config):
    before = numbers(whole)
    train(make_experiment(make_config(), whole))
    assert numbers(whole) == before


@pytest.mark.slow
def test_fewer_devices_go_on_with_the_same_data(tmp_path, make_config, whole):
    stop_after(make_experiment(make_config(), tmp_path / "run"), 4)
    experiment = make_experiment(
        make_config(mesh={"data": 2, "fsdp": 2, "tensor": 2}), tmp_path / "run"
    )
    train(experiment)
    for ours, theirs in zip(numbers(tmp_path / "run"), numbers(whole), strict=True):
        np.testing.assert_allclose(
            [ours[k] for k in sorted(ours) if k != "split"],
            [theirs[k] for k in sorted(theirs) if k != "split"],
            rtol=1e-4,
        )


@pytest.mark.slow
def test_it_learns(tmp_path, make_config, data):
    config = make_config(
        model={
            "vocab_size": 48, "hidden_dropout_prob": 0.0, "hidden_size": 64, "embedding_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2,
        },
        data={"path": str(data)},
        train={"num_steps": 300, "eval_every": 300, "checkpoint_every": 300, "log_every": 50},
        optimizer={"name": "adamw", "learning_rate": 0.004, "bias_correction": True},
    )  # fmt: skip
    experiment = make_experiment(config, tmp_path / "run")
    train(experiment)
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last["split"] == "validation"
    assert last["mlm_loss"] < experiment.baselines["mlm_loss"] - 0.5
    assert len(list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))) == 1
    model = albert_jax.load(tmp_path / "run")
    (filled,) = model.fill_mask("banol [MASK] bolit")
    assert len(filled) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"hidden_dropout_prob": 0.2}}, r"hidden_dropout_prob: was 0\.1, now 0\.2"),
        ({"data": {"mask_rate": 0.3}}, r"data\.mask_rate: was 0\.15, now 0\.3"),
        ({"train": {"seed": 1}}, r"train\.seed: was 0, now 1"),
        ({"optimizer": {"learning_rate": 0.1}}, r"learning_rate: was 0\.01, now 0\.1"),
    ],
)
def test_a_run_with_other_settings_is_refused_by_key(whole, make_config, changes, message):
    before = sorted(p.name for p in whole.iterdir())
    with pytest.raises(ValueError, match=message):
        make_experiment(make_config(**changes), whole)
    assert sorted(p.name for p in whole.iterdir()) == before


def test_settings_that_change_no_number_may_differ(whole, make_config):
    experiment = make_experiment(make_config(train={"log_every": 5, "keep_checkpoints": 2}), whole)
    assert experiment.config.train.log_every == 5


def test_other_rows_are_refused(whole, make_config):
    record = json.loads((whole / "config.json").read_text())
    text = (whole / "config.json").read_text()
    (whole / "config.json").write_text(text.replace(record["data_fingerprint"], "0" * 64))
    try:
        with pytest.raises(ValueError, match=r"data\.path: the data changed"):
            make_experiment(make_config(), whole)
    finally:
        (whole / "config.json").write_text(text)


def test_a_foreign_folder_is_not_written_into(tmp_path, make_config):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(ValueError, match="is not empty"):
        make_experiment(make_config(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
