"""Fine-tuning, every kind of task: it learns by heart, resumes exactly, and is used."""

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest
from support.params import equal_trees
from support.texts import WORDS

import albert_jax
from albert_jax.checkpoints.read import read
from albert_jax.checkpoints.run_dir import read_run
from albert_jax.config import Config, config_from_dict
from albert_jax.evaluate import evaluate
from albert_jax.tasks.registry import read_task
from albert_jax.train import make_experiment
from albert_jax.train.curves import read_metrics
from albert_jax.train.loop import train
from albert_jax.train.seeds import describe, run_seeds, summarize

ENTITIES = {"PER": WORDS[:8], "LOC": WORDS[8:16]}
OTHERS = WORDS[16:48]


def sentence(draw: random.Random, length: int = 6) -> list[str]:
    return draw.choices(OTHERS, k=length)


def write_classification(folder: Path, draw: random.Random) -> None:
    lines = []
    for i in range(32):
        text, pair = sentence(draw), sentence(draw)
        label = ("same", "other", "none")[i % 3]
        text[0] = WORDS[50 + i % 3]
        lines.append(json.dumps({"text": " ".join(text), "pair": " ".join(pair), "label": label}))
    write_both(folder, "jsonl", "\n".join(lines))


def write_regression(folder: Path, draw: random.Random) -> None:
    lines = ["text\tscore"]
    for i in range(32):
        text = sentence(draw)
        text[0] = WORDS[50 + i % 4]
        lines.append(" ".join(text) + f"\t{i % 4 / 2}")
    write_both(folder, "tsv", "\n".join(lines))


def write_tags(folder: Path, draw: random.Random) -> None:
    lines = ["-DOCSTART- -X- O O", ""]
    for _ in range(32):
        for word in sentence(draw, 4):
            lines.append(f"{word} X X O")
            if draw.random() < 0.4:
                kind = draw.choice(list(ENTITIES))
                names = draw.sample(ENTITIES[kind], 2)
                lines += [f"{names[0]} X X B-{kind}", f"{names[1]} X X I-{kind}"]
        lines.append("")
    text = "\n".join(lines) + "\n"
    (folder / "train.txt").write_text(text)
    (folder / "valid.txt").write_text(text)


def write_choices(folder: Path, draw: random.Random) -> None:
    lines = []
    for i in range(32):
        options = draw.sample(OTHERS, 4)
        answer = i % 4
        options[answer] = WORDS[50 + i % 3]
        record = {
            "id": f"middle{i}.txt",
            "article": " ".join(sentence(draw, 12)),
            "questions": ["which _ is it"],
            "options": [options],
            "answers": ["ABCD"[answer]],
        }
        lines.append(json.dumps(record))
    write_both(folder, "jsonl", "\n".join(lines), validation="dev")


def write_questions(folder: Path, draw: random.Random) -> None:
    paragraphs = []
    for i in range(32):
        words = sentence(draw, 30 if i % 8 == 1 else 12)  # some in several windows
        place = draw.randrange(10)
        words[place : place + 2] = [WORDS[50], WORDS[51 + i % 3]]
        context = " ".join(words)
        answer = " ".join(words[place : place + 2])
        is_impossible = i % 4 == 0
        if is_impossible:
            context = context.replace(WORDS[50], OTHERS[0])
        answers = [{"text": answer, "answer_start": context.find(answer)}]
        question = {
            "id": str(i),
            "question": "what is here",
            "is_impossible": is_impossible,
            "answers": [] if is_impossible else answers,
        }
        paragraphs.append({"context": context, "qas": [question]})
    data = {"version": "v2.0", "data": [{"title": "one", "paragraphs": paragraphs}]}
    for name in ("train-v2.0.json", "dev-v2.0.json"):
        (folder / name).write_text(json.dumps(data))


def write_both(folder: Path, end: str, text: str, validation: str = "validation") -> None:
    for name in ("train", validation):
        (folder / f"{name}.{end}").write_text(text + "\n")


WRITERS = {
    "classification": write_classification,
    "regression": write_regression,
    "conll2003": write_tags,
    "race/middle": write_choices,
    "squad/v2.0": write_questions,
}
PERFECT = {
    "classification": "accuracy",
    "regression": "pearson",
    "conll2003": "f1",
    "race/middle": "accuracy",
    "squad/v2.0": "best_f1",
}


@pytest.fixture
def make_config(vocabulary: Path, tmp_path: Path) -> Callable[..., Config]:
    def make(name: str, **groups: dict[str, Any]) -> Config:
        data = tmp_path / "data"
        if not data.exists():
            data.mkdir()
            WRITERS[name](data, random.Random(0))
        values: dict[str, Any] = {
            "init_from": "scratch",
            "model": {
                "vocab_size": 60,
                "embedding_size": 32,
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "max_position_embeddings": 64,
                "initializer_range": 0.1,
            },
            "task": {
                "name": name,
                "data": str(data),
                "tokenizer": str(vocabulary),
                "max_length": 64,
                "stride": 16,
                "classifier_dropout": 0.0,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 3e-3,
                "warmup_steps": 10,
                "bias_correction": True,
            },
            "train": {
                "batch_size": 16,
                "num_steps": 300,
                "dtype": "float32",
                "log_every": 20,
                "eval_every": 100,
                "checkpoint_every": 100,
            },
            "mesh": {"data": 8},
        }
        for group, changes in groups.items():
            values[group] = values[group] | changes if isinstance(changes, dict) else changes
        return config_from_dict(values)

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name if name == "classification" else pytest.param(name, marks=pytest.mark.nightly)
        for name in WRITERS
    ],
)
def test_32_examples_are_learnt_by_heart(name, make_config, tmp_path):
    one_device = jax.devices()[:1]  # to be quick
    train(make_experiment(make_config(name, mesh={"data": 1}), tmp_path / "run", one_device))
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert last[PERFECT[name]] >= (0.99 if name == "regression" else 1.0)
    # ... and what is loaded says so of each of them
    model = albert_jax.load(tmp_path / "run")
    examples = read_task(name, str(tmp_path / "data")).splits["validation"]
    outputs, features = model.run(examples)
    assert model.task.score(outputs, features, examples)[PERFECT[name]] == pytest.approx(
        max(line[PERFECT[name]] for line in validation(tmp_path / "run")), abs=1e-6
    )


def test_steps_may_follow_from_the_number_of_examples(make_config, tmp_path):
    config = make_config(
        "classification",
        train={"num_epochs": 2.5, "batch_size": 8, "log_every": 1},
        optimizer={"warmup_fraction": 0.2},
        mesh={"data": 1},
    )
    experiment = make_experiment(config, tmp_path / "run", jax.devices()[:1])
    settings = experiment.config  # 32 examples
    assert (settings.train.num_steps, settings.optimizer.warmup_steps) == (10, 2)
    assert (settings.train.eval_every, settings.train.checkpoint_every) == (1, 1)
    assert len(list(experiment.train_batches(0))) == 10
    again = make_experiment(config, tmp_path / "run", jax.devices()[:1])  # as when it resumes
    assert again.config == settings
    assert read_run(tmp_path / "run").config.train.num_steps == 10


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"train": {"num_epochs": 3.0}, "task": {"name": "pretrain"}},
            "num_epochs=3.0 is for f",
        ),
        ({"optimizer": {"warmup_fraction": 0.1}}, "warmup_fraction=0.1 needs train.num_epochs"),
        ({"train": {"num_epochs": -1.0}}, "num_epochs=-1.0 must be at least 0"),
    ],
)
def test_epochs_that_mean_nothing_are_refused(groups, message, make_config):
    with pytest.raises(ValueError, match=message):
        make_config("classification", **groups)


def validation(workdir: Path) -> list[dict[str, Any]]:
    lines = read_metrics(workdir / "metrics.jsonl")
    return [line for line in lines if line["split"] == "validation"]


SHORT = {"num_steps": 12, "eval_every": 2, "checkpoint_every": 2, "keep_checkpoints": 1}


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_and_loaded(make_config, tmp_path):
    config = make_config("classification", train=SHORT, optimizer={"learning_rate": 0.01})
    train(make_experiment(config, tmp_path / "run"))
    scores = {line["step"]: line["accuracy"] for line in validation(tmp_path / "run")}
    best = max(scores, key=lambda step: (scores[step], step))
    kept = {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {best, 12}
    assert read(tmp_path / "run").step == best
    assert evaluate(tmp_path / "run")["accuracy"] == scores[best]
    assert evaluate(tmp_path / "run", 12)["accuracy"] == scores[12]


@pytest.mark.slow
def test_a_resumed_run_is_bit_identical(make_config, tmp_path):
    config = make_config(
        "classification", train=SHORT, task={"classifier_dropout": 0.1, "freeze_encoder": False}
    )
    train(make_experiment(config, tmp_path / "whole"))
    experiment = make_experiment(config, tmp_path / "half")

    def batches(first: int) -> Any:
        for number, batch in enumerate(experiment.train_batches(first), first):
            if number == 6:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        train(experiment._replace(train_batches=batches))
    moved = (tmp_path / "data").rename(tmp_path / "elsewhere")
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, data=str(moved)))
    train(make_experiment(config, tmp_path / "half"))
    whole, half = (read(tmp_path / name, step=12) for name in ("whole", "half"))
    assert equal_trees(half.params, whole.params)
    assert validation(tmp_path / "half") == validation(tmp_path / "whole")
    lines = (moved / "train.jsonl").read_text().splitlines(keepends=True)
    (moved / "train.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(ValueError, match=r"task\.data: the data changed"):
        make_experiment(config, tmp_path / "half")


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_is(make_config, tmp_path):
    train(make_experiment(make_config("classification", train=SHORT), tmp_path / "first"))
    first = read(tmp_path / "first")
    config = make_config("classification", train=SHORT, task={"freeze_encoder": True})
    config = dataclasses.replace(config, init_from=str(tmp_path / "first"))
    train(make_experiment(config, tmp_path / "second"))
    second = read(tmp_path / "second", step=12)
    for part in ("embeddings", "encoder", "pooler"):
        assert equal_trees(second.params[part], first.params[part])
    assert not equal_trees(second.params["classifier"], first.params["classifier"])


@pytest.mark.slow
def test_a_head_for_other_classes_is_left_behind(make_config, tmp_path):
    """As where RTE and STS-B begin with a model of MNLI."""
    train(make_experiment(make_config("classification", train=SHORT), tmp_path / "first"))
    first = read(tmp_path / "first")
    assert first.params["classifier"]["bias"].shape == (3,)
    again = dataclasses.replace(make_config("classification"), init_from=str(tmp_path / "first"))
    experiment = make_experiment(again, tmp_path / "again")
    assert experiment.start is not None
    assert equal_trees(experiment.start.params["classifier"], first.params["classifier"])
    (tmp_path / "data").rename(tmp_path / "other")
    config = make_config("regression", train=SHORT)
    experiment = make_experiment(
        dataclasses.replace(config, init_from=str(tmp_path / "first")), tmp_path / "second"
    )
    assert experiment.start is not None
    assert experiment.start.params.keys() == {"embeddings", "encoder", "pooler"}
    train(experiment)
    assert read(tmp_path / "second").params["classifier"]["bias"].shape == (1,)


@pytest.mark.slow
def test_seeds_are_runs_of_their_own_and_summed_up(make_config, tmp_path):
    config = make_config("classification", train=SHORT, task={"seeds": [3, 5]})

    def run(one: Config, workdir: Path) -> str:
        if one.train.seed == 5:
            raise FloatingPointError("the loss is nan")
        train(make_experiment(one, workdir))
        return "accuracy"

    assert run_seeds(config, tmp_path / "runs", run) == 0
    summary = json.loads((tmp_path / "runs" / "seeds.json").read_text())
    value = max(line["accuracy"] for line in validation(tmp_path / "runs" / "seed_3"))
    assert summary["values"] == {"3": value}
    assert summary["median"] == summary["smallest"] == summary["largest"] == value
    assert summary["failed"] == {"5": "FloatingPointError: the loss is nan"}
    assert summary["metric"] == "accuracy"


def test_the_median_is_of_the_runs_that_did_not_fail():
    summary = summarize("f1", {"0": 0.5, "1": 0.9, "2": 0.6}, {"3": "no"})
    assert (summary["median"], summary["smallest"], summary["largest"]) == (0.6, 0.5, 0.9)
    assert describe(summary) == "f1: median 0.6000, from 0.5000 to 0.9000; 3 runs, 1 failed"
    assert describe(summarize("f1", {}, {"3": "no"})) == "0 runs, 1 failed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init_from": ""}, "config.init_from is empty"),
        ({"init_from": "nowhere"}, "there is no model at 'nowhere'"),
        ({"task": {"tokenizer": ""}}, "config.task.tokenizer is empty"),
        ({"task": {"data": "nowhere"}}, "nowhere"),
        ({"model": {"vocab_size": 59}}, "has 60 tokens"),
        ({"train": {"checkpoint_every": 30}}, "checkpoint_every=30"),
    ],
)
def test_what_cannot_begin_is_refused(changes, message, make_config, tmp_path):
    make_config("classification")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_experiment(make_config("classification", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
