"""The table of tasks, and a task that is registered from outside the package."""

import json
from pathlib import Path

import pytest
from support.texts import VOCAB_SIZE, WORDS

import albert_jax
from albert_jax.config import config_from_dict
from albert_jax.evaluate import evaluate
from albert_jax.model.heads import KINDS
from albert_jax.predict.__main__ import predict
from albert_jax.tasks.classification import Classification
from albert_jax.tasks.examples import TaskData, TextExample
from albert_jax.tasks.finetuning import Recipe, TaskSpec
from albert_jax.tasks.metrics import METRICS
from albert_jax.tasks.registry import SPECS, fine_tuning_recipe, read_task, register, spec_of
from albert_jax.tasks.submissions import LeaderboardFiles
from albert_jax.train import make_experiment
from albert_jax.train.loop import train

LABELS = ("north", "south")


def read_weather(name, source):
    """A line is a class and a text."""
    del name
    splits = {}
    for split, file in {"train": "train.txt", "validation": "dev.txt", "test": "test.txt"}.items():
        lines = (line.split(" ", 1) for line in Path(source, file).read_text().splitlines())
        splits[split] = [
            TextExample(str(i), text, None, None if split == "test" else LABELS.index(label))
            for i, (label, text) in enumerate(lines)
        ]
    return TaskData(splits, LABELS)


@pytest.fixture
def weather():
    """A task like GLUE's, known to this package only by its entry."""
    spec = TaskSpec(
        name="weather",
        family=Classification,
        read=read_weather,
        metrics=("matthews", "accuracy"),
        recipe=Recipe(1e-3, 8, 0.0, 6, 1, 32),
        files=LeaderboardFiles({"test": "WEATHER.tsv"}),
    )
    register(spec)
    yield spec
    del SPECS["weather"]


@pytest.mark.slow
def test_a_task_from_outside_is_trained_evaluated_and_predicted(weather, vocabulary, tmp_path):
    for file in ("train.txt", "dev.txt", "test.txt"):
        lines = (f"{LABELS[i % 2]} {WORDS[i % 2]} {WORDS[9 + i]}\n" for i in range(16))
        (tmp_path / file).write_text("".join(lines))
    values = fine_tuning_recipe("weather")
    values["model"] |= {
        "vocab_size": VOCAB_SIZE, "embedding_size": 16, "hidden_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "max_position_embeddings": 32,
    }  # fmt: skip
    values["train"] |= {"dtype": "float32", "eval_every": 3, "checkpoint_every": 3}
    values["task"] |= {"data": str(tmp_path), "tokenizer": str(vocabulary)}
    config = config_from_dict(values | {"init_from": "scratch"})
    train(make_experiment(config, tmp_path / "run"))

    found = evaluate(tmp_path / "run")
    assert set(found) == {"step", "matthews", "accuracy"}
    model = albert_jax.load(tmp_path / "run")
    assert model.task.spec is weather
    assert model.classify([WORDS[0]])[0].label in LABELS
    predict(str(tmp_path / "run"), str(tmp_path), tmp_path / "out")
    lines = (tmp_path / "out" / "WEATHER.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert len(lines) == 17
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_task_of_an_installed_package_is_found(monkeypatch):
    class EntryPoint:
        def load(self):
            register(TaskSpec("found", Classification, read_weather, ("accuracy",)))

    asked = []

    def entry_points(group):
        asked.append(group)
        return [EntryPoint()]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    try:
        assert spec_of("found").name == "found"
    finally:
        SPECS.pop("found", None)
    assert asked == ["albert_jax.tasks"]


def test_what_is_not_in_the_table_is_refused(weather):
    with pytest.raises(ValueError, match=r"config.task.name='glue/colla'.*mean 'glue/cola'"):
        spec_of("glue/colla")
    with pytest.raises(ValueError, match="weather is not read from TFDS"):
        read_task("weather", "tfds:weather")
    with pytest.raises(ValueError, match="no recipe for 'classification' 'v2'"):
        fine_tuning_recipe("classification")


def test_the_table_is_sound():
    for name, spec in SPECS.items():
        assert spec.name == name
        assert spec.family.kind in KINDS
        if spec.family.kind in ("classification", "multiple_choice"):
            assert set(spec.metrics) <= set(METRICS)
    json.dumps({name: fine_tuning_recipe(name) for name, spec in SPECS.items() if spec.recipe})


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ((), "metrics must not be empty"),
        (("acuracy",), "metrics must be one of accuracy, .*did you mean 'accuracy'"),
        (("mean_squared_error", "pearson"), "larger must be better"),
    ],
)
def test_metrics_that_cannot_be_computed_are_refused_at_once(metrics, message):
    with pytest.raises(ValueError, match=message):
        TaskSpec("weather", Classification, read_weather, metrics)
