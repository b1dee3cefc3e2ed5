"""Translation as a run: it learns, resumes exactly, starts from other models, and is used."""

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.params import equal_trees
from support.texts import WORDS
from support.translation import pair_batch, translation_model

import albert_jax
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.read import read
from albert_jax.checkpoints.state import TrainState, state_spec
from albert_jax.config import Config, MeshConfig, config_from_dict
from albert_jax.evaluate import evaluate
from albert_jax.model.sharding import global_batch, make_mesh
from albert_jax.predict.__main__ import predict
from albert_jax.tasks.registry import make_task
from albert_jax.tasks.translation import smoothed_cross_entropy
from albert_jax.train import make_experiment
from albert_jax.train.curves import read_metrics
from albert_jax.train.experiment import model_builder
from albert_jax.train.initialization import start_with
from albert_jax.train.loop import train
from albert_jax.train.optimizer import make_schedule, optimizer_of
from albert_jax.train.step import compile_steps

SHORT = {"num_steps": 6, "eval_every": 3, "checkpoint_every": 3, "log_every": 1}


def write_pairs(folder: Path) -> None:
    """Sentences of a few words, and the same words backwards with another in their place."""
    draw = random.Random(0)
    folder.mkdir()
    for split, count in (("train", 300), ("val", 20)):
        sources = [draw.choices(WORDS[:8], k=draw.randint(2, 4)) for _ in range(count)]
        targets = [[WORDS[8 + WORDS.index(word)] for word in line[::-1]] for line in sources]
        for language, lines in (("en", sources), ("de", targets)):
            text = "".join(" ".join(line) + "\n" for line in lines)
            (folder / f"{split}.{language}").write_text(text)


@pytest.fixture
def make_config(vocabulary: Path, tmp_path: Path) -> Callable[..., Config]:
    def make(**groups: dict[str, Any]) -> Config:
        data = tmp_path / "data"
        if not data.exists():
            write_pairs(data)
        values: dict[str, Any] = {
            "init_from": "scratch",
            "model": {
                "vocab_size": 64,
                "embedding_size": 32,
                "hidden_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "intermediate_size": 128,
                "max_position_embeddings": 64,
                "initializer_range": 0.1,
                "hidden_dropout_prob": 0.1,
            },
            "task": {
                "name": "translation/en-de",
                "data": str(data),
                "tokenizer": str(vocabulary),
                "max_length": 32,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 3e-3,
                "warmup_steps": 3,
                "schedule": "inverse_sqrt",
                "bias_correction": True,
            },
            "train": {"batch_size": 16, "batch_tokens": 512, "dtype": "float32", **SHORT},
            "mesh": {"data": 8},
        }
        for group, changes in groups.items():
            values[group] = values[group] | changes if isinstance(changes, dict) else changes
        return config_from_dict(values)

    return make


@pytest.mark.slow
def test_words_are_translated_backwards(make_config, tmp_path):
    """One that has learnt is used in every way."""
    steps = {"num_steps": 400, "eval_every": 100, "checkpoint_every": 100, "log_every": 100}
    config = make_config(
        train=steps, model={"hidden_dropout_prob": 0.0}, optimizer={"warmup_steps": 50}
    )
    train(make_experiment(config, tmp_path / "run"))
    found = evaluate(tmp_path / "run")
    assert found["bleu"] > 90
    model = albert_jax.load(tmp_path / "run")
    first, second = WORDS[:2]
    expected = f"{WORDS[9]} {WORDS[8]}"
    one, blank = model.translate([f"{first} {second}", " "], beam=3, n_best=3)
    assert one.text == expected == one.n_best[0].text
    assert blank.text == ""
    scores = [hypothesis.score for hypothesis in one.n_best]
    assert scores == sorted(scores, reverse=True)
    assert model.translate([f"{first} {second}"], beam=1)[0].text == expected

    (tmp_path / "new.txt").write_text(f"{first} {second}\n\n{second} {first}\n")
    said = predict(str(tmp_path / "run"), str(tmp_path / "new.txt"), tmp_path / "out")
    lines = (tmp_path / "out" / "new_predictions.de").read_text().split("\n")
    # As long as those that were learnt: what a single word gives, rounding decides.
    assert lines == [expected, "", f"{WORDS[8]} {WORDS[9]}", ""]
    assert not any("bleu" in line for line in said)
    said = predict(str(tmp_path / "run"), str(tmp_path / "data" / "val.en"), tmp_path / "out")
    assert any("bleu: nrefs:1|case:mixed" in line for line in said)
    averaged = albert_jax.load(tmp_path / "run", average=2)
    one, other = (read(tmp_path / "run", step=step).params for step in (300, 400))
    mean = jax.tree.map(lambda a, b: np.float32((np.float64(a) + b) / 2), one, other)
    assert equal_trees(averaged.params, mean)


@pytest.mark.slow
def test_a_resumed_run_is_bit_identical(make_config, tmp_path):
    config = make_config(task={"freeze_encoder": True, "freeze_steps": 2})
    train(make_experiment(config, tmp_path / "whole"))
    experiment = make_experiment(config, tmp_path / "half")

    def batches(first: int) -> Any:
        for number, batch in enumerate(experiment.train_batches(first), first):
            if number == 4:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        train(experiment._replace(train_batches=batches))
    train(make_experiment(config, tmp_path / "half"))
    whole, half = (read(tmp_path / name, step=6) for name in ("whole", "half"))
    assert equal_trees(half.params, whole.params)


@pytest.mark.slow
def test_new_weights_first_then_all(make_config, tmp_path):
    config = make_config(
        task={"freeze_encoder": True, "freeze_steps": 3}, train={"keep_checkpoints": 3}
    )
    experiment = make_experiment(config, tmp_path / "run")
    key, _ = jax.random.split(jax.random.key(config.train.seed))
    start = experiment.spec.init(key).params
    train(experiment)
    three, six = (read(tmp_path / "run", step=step).params for step in (3, 6))
    for part in ("embeddings", "encoder"):
        assert equal_trees(three[part], start[part])
        assert not equal_trees(six[part], start[part])
    assert not equal_trees(three["decoder"], start["decoder"])


@pytest.mark.slow
@pytest.mark.parametrize("share_encoder", [True, False])
def test_a_decoder_begins_as_the_encoder(make_config, tmp_path, share_encoder):
    train(make_experiment(make_config(), tmp_path / "first"))
    first = read(tmp_path / "first")
    encoder = first._replace(
        kind="masked_lm", params={k: v for k, v in first.params.items() if k != "decoder"}
    )
    write_hf(encoder, tmp_path / "encoder")
    config = make_config(
        model={"decoder": {"share_encoder": share_encoder}}, init_from=str(tmp_path / "encoder")
    )
    experiment = make_experiment(config, tmp_path / "second")
    assert experiment.config.model.decoder.share_encoder == share_encoder
    assert experiment.start is not None
    start = start_with(experiment.start, experiment.spec.init(jax.random.key(0)).params)
    for part in ("embeddings", "encoder", "mlm"):
        assert equal_trees(start[part], encoder.params[part])
    inner = start["decoder"]["group_0"]["inner_group_0"]
    theirs = encoder.params["encoder"]["group_0"]["inner_group_0"]
    assert set(inner) == {"cross_attention"} | (set() if share_encoder else {"attention", "ffn"})
    for name in set(inner) - {"cross_attention"}:
        assert equal_trees(inner[name], theirs[name])


def updates(mesh: MeshConfig, devices: int, accum: int = 1) -> TrainState:
    """Three updates on fixed batches."""
    model = translation_model(
        share_encoder=False, num_hidden_layers=2, hidden_dropout_prob=0.1, initializer_range=0.05
    )
    values = {
        "model": dataclasses.asdict(model),
        "mesh": dataclasses.asdict(mesh),
        "task": {"name": "translation/en-de", "max_length": 32},
        "train": {"batch_size": 16, "grad_accum_steps": accum, "dtype": "float32"},
        "optimizer": {"learning_rate": 0.01, "warmup_steps": 1},
    }
    config = config_from_dict(values)
    task, grid = make_task(config.task, ()), make_mesh(mesh, jax.devices()[:devices])
    spec = state_spec(model_builder(config, task.kind), optimizer_of(config), grid)
    with jax.set_mesh(grid):
        state = spec.init(jax.random.key(0))
        step, _ = compile_steps(task, spec, grid, accum)
        for seed in range(3):
            batch = global_batch(pair_batch(rows=16, seed=seed), grid, 16)
            state, _ = step(state, batch, jax.random.key(1))
    return state


@pytest.mark.parametrize(
    ("sizes", "accum"),
    [
        ((2, 2, 2), 1),
        pytest.param((8, 1, 1), 2, marks=pytest.mark.slow),
        pytest.param((1, 8, 1), 1, marks=pytest.mark.slow),
        pytest.param((2, 1, 4), 2, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_eight_devices_compute_what_one_does(sizes, accum):
    ours, theirs = updates(MeshConfig(*sizes), 8, accum), updates(MeshConfig(), 1)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=4e-6),
        ours.params,
        theirs.params,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_loss_is_that_of_smoothed_labels(smoothing):
    draw = np.random.default_rng(0)
    logits = jnp.asarray(draw.normal(size=(3, 5, 11)) * 3, jnp.float32)
    labels = jnp.asarray(draw.integers(0, 11, (3, 5)))
    weights = jnp.asarray(draw.integers(0, 2, (3, 5)), jnp.float32)
    soft = optax.smooth_labels(jax.nn.one_hot(labels, 11), smoothing)

    def expected(logits: jax.Array) -> jax.Array:
        return jnp.sum(optax.softmax_cross_entropy(logits, soft) * weights)

    def found(logits: jax.Array) -> jax.Array:
        return smoothed_cross_entropy(logits, labels, weights, smoothing)[0]

    for a, b in zip(
        jax.value_and_grad(found)(logits), jax.value_and_grad(expected)(logits), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)
    hard = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    _, entropy, right = smoothed_cross_entropy(logits, labels, weights, smoothing)
    np.testing.assert_allclose(entropy, jnp.sum(hard * weights), rtol=1e-5)
    assert right == jnp.sum((jnp.argmax(logits, -1) == labels) * weights)


def test_the_rate_falls_with_the_root_of_the_step(make_config):
    config = make_config(optimizer={"learning_rate": 0.5, "warmup_steps": 4})
    rate = make_schedule(config.optimizer, 100)
    for step, expected in ((0, 0.0), (2, 0.25), (4, 0.5), (16, 0.25), (64, 0.125)):
        assert np.asarray(rate(step)) == pytest.approx(expected)


def test_pairs_that_are_too_long_are_left_out_of_training_only(make_config, tmp_path):
    config = make_config(task={"max_length": 8})
    experiment = make_experiment(config, tmp_path / "run")
    assert any("left out" in note for note in experiment.notes)


def test_metrics_name_what_a_step_held(make_config, tmp_path):
    once = {"num_steps": 1, "eval_every": 1, "checkpoint_every": 1}
    config = make_config(train=once, optimizer={"warmup_steps": 0})
    train(make_experiment(config, tmp_path / "run"))
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    held_out = next(line for line in lines if line["split"] == "validation")
    assert {"bleu", "chrf", "bleu_lower_cased", "cross_entropy"} <= held_out.keys()
