"""Searches over settings and seeds: which runs there are, what came out, and going on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.texts import WORDS
from support.tiny_runs import write_config

from albert_jax.sweep.__main__ import main
from albert_jax.sweep.search import _of_constants, search
from albert_jax.sweep.trials import combinations, name_of, parse_settings
from albert_jax.tasks.examples import Answer, QuestionExample
from albert_jax.train.preemption import EXIT_CODE

SETTINGS = {"optimizer.learning_rate": ["0.01", "1e30"]}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], {}),
        (["a.b=1,2"], {"a.b": ["1", "2"]}),
        (["config.a=x", "b=(1,2),[3,4]"], {"a": ["x"], "b": ["(1,2)", "[3,4]"]}),
    ],
)
def test_values_are_divided_at_commas(words, wanted):
    assert parse_settings(words) == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "--try 'a' must be KEY=VALUE,VALUE"),
        (["a="], "must be KEY=VALUE"),
        (["a=1,"], "has an empty value, or one twice"),
        (["a=1,1"], "has an empty value, or one twice"),
        (["a=1", "a=2"], "--try a is given twice"),
    ],
)
def test_what_is_no_setting_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_settings(words)


@given(
    st.dictionaries(
        st.sampled_from(["a.x", "b.x", "c.y"]),
        st.lists(st.integers(0, 9).map(str), min_size=1, max_size=4, unique=True),
    ),
    st.integers(1, 70),
)
def test_every_combination_has_a_name_and_samples_are_some_of_them(settings, samples):
    every, some = combinations(settings), combinations(settings, samples)
    count = 1
    for values in settings.values():
        count *= len(values)
    assert len(every) == count
    assert len(some) == min(samples, count)
    assert some.items() <= every.items()
    assert combinations(settings, samples) == some


def test_names_are_short_unless_two_are_alike():
    assert name_of({}) == "as it is"
    assert name_of({"optimizer.learning_rate": "1e-5", "task.data": "a/b"}) == (
        "learning_rate=1e-5 data=a_b"
    )
    assert name_of({"a.x": "1", "b.x": "2"}) == "a.x=1 b.x=2"


@pytest.mark.parametrize("values", [["a/b", "a_b"], ["a" * 201], ["語" * 80]])
def test_names_that_are_alike_or_too_long_are_refused(values):
    with pytest.raises(ValueError, match="the same name, or too long a one; use shorter values"):
        combinations({"init_from": values})


@pytest.fixture(scope="module")
def config(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config that fine-tunes a classifier for eight steps."""
    folder = tmp_path_factory.mktemp("search")
    draw = random.Random(0)
    lines = [
        json.dumps({"text": f"{WORDS[i % 3]} {draw.choice(WORDS)}", "label": "abc"[i % 3]})
        for i in range(24)
    ]
    for name in ("train", "validation"):
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    model = {"vocab_size": 60, "embedding_size": 16, "hidden_size": 16, "num_hidden_layers": 1}
    model |= {"num_attention_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64}
    train = {"batch_size": 8, "num_steps": 8, "dtype": "float32", "log_every": 2}
    settings = {
        "init_from": "scratch",
        "model": model,
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "warmup_steps": 2},
        "train": train | {"eval_every": 4, "checkpoint_every": 4, "max_bad_steps": 1},
        "data": {"seq_len": 32},
        "task": {
            "name": "classification",
            "data": str(folder),
            "tokenizer": str(rows),
            "max_length": 32,
        },
    }
    return write_config(folder / "tune.py", settings)


@pytest.fixture(scope="module")
def done(config, tmp_path_factory):
    output = tmp_path_factory.mktemp("done") / "out"
    return output, search(str(config), output, SETTINGS, seeds=2, jobs=2)


@pytest.mark.slow
def test_a_failed_run_does_not_stop_the_rest_and_is_named(done):
    output, results = done
    good, bad = results["learning_rate=0.01"], results["learning_rate=1e30"]
    for run in good.values():
        assert 0 < run["value"] <= 1
        assert run["collapsed"] == (run["value"] <= 1 / 3)
    assert all("error: step 3: loss nan" in run["failed"] for run in bad.values())
    assert json.loads((output / "results.json").read_text()) == results
    table = (output / "table.md").read_text()
    assert "the same answer for every example (0.3333)" in table
    assert table.index("| learning_rate=0.01 | ") < table.index("| learning_rate=1e30 | – |")
    assert f"- learning_rate=1e30, seed 1: {bad['1']['failed']}" in table
    assert (output / "table.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_stopped_search_goes_on_to_the_same_table(config, done, tmp_path):
    words = [config, "--output", tmp_path / "out", "--seeds", "2"]
    command = [sys.executable, "-m", "albert_jax.sweep", *map(str, words)]
    command += ["--try", "optimizer.learning_rate=0.01,1e30"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    first = tmp_path / "out" / "learning_rate=0.01" / "seed_0" / "metrics.jsonl"
    while process.poll() is None and not first.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == EXIT_CODE
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert again.returncode == 1, again.stderr  # some runs failed
    assert (tmp_path / "out" / "table.md").read_text() == (done[0] / "table.md").read_text()
    third = subprocess.run(command, check=False, capture_output=True, text=True)
    began = third.stdout.partition("\n# ")[0]
    assert "== learning_rate=0.01, seed" not in began  # not trained again
    value = done[1]["learning_rate=0.01"]["1"]["value"]
    assert f"learning_rate=0.01, seed 1: accuracy {value:.4f} (2 of 4 runs)" in began


@pytest.mark.slow
def test_two_searches_at_once_do_not_disturb_each_other(config, done, tmp_path):
    words = [config, "--output", tmp_path / "out", "--seeds", "2"]
    command = [sys.executable, "-m", "albert_jax.sweep", *map(str, words)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "as it is, seed 0: another process does it; waiting" in "".join(said)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found == {"as it is": done[1]["learning_rate=0.01"]}


def test_the_floor_of_questions_is_never_to_answer():
    asked = [QuestionExample(str(i), "", "a", "a?", (Answer("a", 0),) * (i % 3)) for i in range(9)]
    assert _of_constants("f1", asked) == pytest.approx(1 / 3)


def test_a_seed_of_all_runs_is_refused(config, tmp_path, capsys):
    assert main([str(config), "--output", str(tmp_path), "--config.train.seed=7"]) == 1
    assert "--seeds counts seeds, from 0; leave it out" in capsys.readouterr().err


def test_seeds_are_no_setting(config, tmp_path, capsys):
    assert main([str(config), "--output", str(tmp_path / "out"), "--try", "train.seed=1,2"]) == 1
    assert "seeds are counted by --seeds; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_seeds_of_the_config_are_refused(config, tmp_path, capsys):
    words = [str(config), "--output", str(tmp_path / "out"), "--config.task.seeds=(0,1)"]
    assert main(words) == 1
    assert "task.seeds=(0, 1): --seeds counts seeds; leave it out" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_without_a_validation_set_are_refused(config, tmp_path, capsys):
    (tmp_path / "train.jsonl").write_text((config.parent / "train.jsonl").read_text())
    words = [str(config), "--output", str(tmp_path / "out"), f"--config.task.data={tmp_path}"]
    assert main(words) == 1
    assert "has no validation set, by which runs are ranked; add one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_equal_settings_are_refused(config, tmp_path, capsys):
    words = [str(config), "--output", str(tmp_path / "out"), "--try"]
    assert main([*words, "optimizer.learning_rate=1e-3,0.001"]) == 1
    assert "are the same settings; drop one" in capsys.readouterr().err


@pytest.mark.slow
def test_other_settings_need_another_folder(config, done):
    output, _ = done
    table = (output / "table.md").read_text()
    with pytest.raises(
        ValueError, match=r"train.num_steps: was 8, now 9. Restore them, or choose"
    ):
        search(str(config), output, SETTINGS, 1, 1, 1, ["--config.train.num_steps=9"])
    assert (output / "table.md").read_text() == table
