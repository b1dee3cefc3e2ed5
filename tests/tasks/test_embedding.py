"""Embedding tasks: both losses against NumPy, what is read and refused, and a whole run."""

import json
import random
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import stats
from support.finetuned import make_weights
from support.models import tiny_model
from support.texts import VOCAB_SIZE, WORDS, make_sentence

import albert_jax
from albert_jax.config import TaskConfig, config_from_dict
from albert_jax.config.embedding import EmbeddingConfig
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.evaluate import evaluate
from albert_jax.model.albert import abstract_model
from albert_jax.predict.__main__ import predict
from albert_jax.tasks.batching import collate
from albert_jax.tasks.embedding import Embedding, pair_features, pooled, recall_at_1
from albert_jax.tasks.examples import TextExample
from albert_jax.tasks.registry import make_task, read_task
from albert_jax.train import make_experiment
from albert_jax.train.curves import read_metrics
from albert_jax.train.loop import train

TEMPERATURE = 0.2
CONFIG = tiny_model(vocab_size=VOCAB_SIZE, num_hidden_layers=1)


@pytest.fixture(scope="module")
def tokenizer(vocabulary) -> Tokenizer:
    return load_tokenizer(vocabulary)


def task_of(**settings: Any) -> Embedding:
    config = TaskConfig("embedding/pairs", max_length=32, embedding=EmbeddingConfig(**settings))
    task = make_task(config, ())
    assert isinstance(task, Embedding)
    return task


def examples_of(count: int, scores: bool = False) -> list[TextExample]:
    draw = random.Random(1)
    return [
        TextExample(
            str(i),
            make_sentence(draw, 1, 8),
            make_sentence(draw, 1, 8),
            i / count if scores else None,
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def weights() -> Any:
    return make_weights("embedding", config=CONFIG)


@pytest.fixture(scope="module")
def model(weights) -> Any:
    graphdef, _ = nnx.split(abstract_model(CONFIG, weights.params), nnx.Param)
    return nnx.merge(graphdef, weights.params)


def vectors_of(model: Any, batch: dict[str, np.ndarray], pooling: str) -> np.ndarray:
    """The vectors of both texts of the rows, pooled one by one."""
    width = batch["input_ids"].shape[-1]
    names = ("input_ids", "token_type_ids", "attention_mask")
    rows = {name: batch[name].reshape(-1, width) for name in names}
    found = []
    x_RTD = jax.jit(lambda rows: model.encode(rows))(rows)
    for x_TD, mask_T in zip(x_RTD, rows["attention_mask"], strict=True):
        real = np.asarray(x_TD, np.float64)[mask_T > 0]
        vector = real.mean(0) if pooling == "mean" else real[0]
        found.append(vector / np.linalg.norm(vector))
    return np.reshape(found, (-1, 2, CONFIG.hidden_size))


def test_pooling_by_hand():
    x_BTD = np.array([[[1.0, 2], [3, 4], [5, 6]], [[1, 0], [0, 1], [9, 9]]], np.float32)
    mask_BT = np.array([[1, 1, 1], [1, 1, 0]], np.int32)
    for array in (np.asarray, jnp.asarray):
        x, mask = array(x_BTD), array(mask_BT)
        np.testing.assert_allclose(pooled(x, mask, "mean"), [[3, 4], [0.5, 0.5]])
        np.testing.assert_allclose(pooled(x, mask, "cls"), [[1, 2], [1, 0]])
    assert pooled(jnp.asarray(x_BTD, jnp.bfloat16), mask_BT, "mean").dtype == jnp.float32


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_in_batch_negatives_are_those_of_numpy(pooling, model, tokenizer):
    task = task_of(pooling=pooling, temperature=TEMPERATURE)
    examples = examples_of(6)
    examples[4] = examples[4]._replace(text=examples[1].text)  # has two pairs
    examples[5] = examples[5]._replace(pair=examples[2].pair)
    rows = task.features(examples, tokenizer).rows
    batch: Any = collate(rows, 8, 32, 32)  # and two that fill it up
    found = jax.jit(lambda batch: task.metrics(model, batch, None))(batch)

    x_N2D = vectors_of(model, batch, pooling)
    texts, pairs = x_N2D[:6, 0], x_N2D[:6, 1]
    logits = texts @ pairs.T / TEMPERATURE
    for a, b in ((1, 4), (2, 5)):
        logits[a, b] = logits[b, a] = -np.inf
    loss = right = 0
    for scores in (logits, logits.T):
        loss -= np.log(np.exp(scores).diagonal() / np.exp(scores).sum(-1)).sum()
        right += (scores.argmax(-1) == np.arange(6)).sum()
    total, count = found["task_loss"]
    assert (float(total), float(count)) == (pytest.approx(loss, rel=1e-4), 12)
    assert float(task.loss_counts(batch)["task_loss"]) == 12
    assert tuple(map(float, found["task_accuracy"])) == (right, 12)
    tokens = batch["attention_mask"][:6].sum()
    assert tuple(map(float, found["tokens"])) == (tokens, 0)


def test_the_loss_of_scores_is_that_of_numpy(model, tokenizer):
    task, examples = task_of(), examples_of(6, scores=True)
    batch: Any = collate(task.features(examples, tokenizer).rows, 8, 32, 32)
    found = jax.jit(lambda batch: task.metrics(model, batch, None))(batch)
    x_N2D = vectors_of(model, batch, "mean")[:6]
    cosines = (x_N2D[:, 0] * x_N2D[:, 1]).sum(-1)
    scores = np.array([example.label for example in examples])
    total, count = found["task_loss"]
    loss = np.square(cosines - scores).sum()
    assert (float(total), float(count)) == (pytest.approx(loss, rel=1e-4), 6)
    assert float(task.loss_counts(batch)["task_loss"]) == 6
    assert "task_accuracy" not in found

    outputs = [{"vectors": x} for x in x_N2D]
    features = task.features(examples, tokenizer)
    assert task.predictions(outputs, features, 6) == pytest.approx(cosines)
    assert task.score(outputs, features, examples) == {
        "spearman": pytest.approx(stats.spearmanr(cosines, scores)[0]),
        "pearson": pytest.approx(stats.pearsonr(cosines, scores)[0]),
    }


@pytest.mark.parametrize("scores", [False, True], ids=["pairs", "scores"])
def test_gradients_reach_the_encoder_but_not_from_rows_that_fill_up(scores, weights, tokenizer):
    task = task_of(temperature=TEMPERATURE)
    rows = task.features(examples_of(8, scores), tokenizer).rows
    graphdef, _ = nnx.split(abstract_model(CONFIG, weights.params), nnx.Param)

    @jax.jit
    def gradient(batch: Any) -> Any:
        def loss(params: Any) -> Any:
            return task.metrics(nnx.merge(graphdef, params), batch, None)["task_loss"].total

        return jax.grad(loss)(weights.params)

    batch = collate(rows[:6], 8, 32, 32)
    found = gradient(batch)
    sizes = {
        part: sum(float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(found[part]))
        for part in found
    }
    assert set(sizes) == {"embeddings", "encoder"}
    assert min(sizes.values()) > 1e-2
    others = gradient(collate(rows, 8, 32, 32) | {"weights": batch["weights"]})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, others)


def test_recall_counts_texts_that_are_nearest_to_their_own_pair_or_an_equal_one():
    x_N2D = np.zeros((4, 2, 4), np.float32)
    for row, (text, pair) in enumerate([(0, 0), (1, 1), (2, 3), (3, 2)]):
        x_N2D[row, 0, text] = x_N2D[row, 1, pair] = 1
    ids_N2 = np.arange(8).reshape(4, 2)
    assert recall_at_1(x_N2D, ids_N2) == 0.5
    ids_N2[3, 1] = ids_N2[2, 1]
    assert recall_at_1(x_N2D, ids_N2) == 1
    many = np.random.default_rng(0).normal(size=(3000, 1, 8)).astype(np.float32)
    many /= np.linalg.norm(many, axis=-1, keepdims=True)
    both = np.concatenate([many, many], axis=1)
    assert recall_at_1(both, np.arange(6000).reshape(-1, 2)) == 1


def test_rows_hold_both_texts_and_number_equal_ones(tokenizer):
    long = " ".join(WORDS[:30])
    examples = [
        TextExample("0", "tan", "siling", 0.5),
        TextExample("1", "siling", long, 0.25),
        TextExample("2", "tan", "kel", None),
    ]
    rows, owners, notes, _ = pair_features(examples, tokenizer, 16)
    assert owners.tolist() == [0, 1, 2]
    assert notes == {"texts cut": 1}
    assert [row["input_ids"].shape for row in rows[1:2]] == [(2, 16)]
    for row, example in zip(rows, examples, strict=True):
        assert example.pair is not None
        for part, text in enumerate((example.text, example.pair)):
            count = row["attention_mask"][part].sum()
            special = tokenizer.special
            ids = [special.cls, *tokenizer.encode(text)[:14], special.sep]
            assert row["input_ids"][part, :count].tolist() == ids
            assert not row["input_ids"][part, count:].any()
    ids = [row["text_ids"].tolist() for row in rows]
    assert ids[0][1] == ids[1][0]
    assert ids[0][0] == ids[2][0]
    assert len({number for both in ids for number in both}) == 4
    assert rows[0]["label"] == np.float32(0.5)
    assert "label" not in rows[2]
    with pytest.raises(ValueError, match="example 7 has no second text"):
        pair_features([TextExample("7", "tan", None, None)], tokenizer, 16)


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.tsv").write_text(text)
    return folder


def test_tables_with_and_without_scores(tmp_path):
    plain = write(tmp_path / "plain", train="text\tpair\na\tb\nc\td\n", dev="text\tpair\na\tb\n")
    data = read_task("embedding/pairs", plain)
    assert data.splits["train"][1] == TextExample("1", "c", "d", None)
    assert make_task(TaskConfig("embedding/pairs"), ()).reported(data.splits["validation"]) == (
        "recall_at_1",
    )
    scored = "text\tpair\tlabel\na\tb\t0.5\n"
    data = read_task("embedding/pairs", write(tmp_path / "scored", train=scored, dev=scored))
    assert data.splits["validation"][0].label == 0.5
    assert make_task(TaskConfig("embedding/pairs"), ()).reported(data.splits["validation"]) == (
        "spearman",
        "pearson",
    )
    lone = write(tmp_path / "lone", other="text\tpair\tmore\na\tb\tx\n") / "other.tsv"
    ((example,),) = read_task("embedding/pairs", lone, to_predict=True).splits.values()
    assert example.columns["more"] == "x"


@pytest.mark.parametrize(
    ("train_text", "dev_text", "message"),
    [
        ("text\tpair\na\t \n", None, r"train.tsv:2: no text in 'pair'; fill it in or drop"),
        ("text\na\n", None, "train.tsv: no column 'pair'"),
        ("text\tpair\tscore\na\tb\t1.5\n", None, "train.tsv:2: score 1.5 is not between 0 and 1"),
        ("text\tpair\tscore\na\tb\t-1\n", None, "score -1.0 is not between 0 and 1"),
        ("text\tpair\tscore\na\tb\tx\n", None, "train.tsv:2"),
        ("text\tpair\tscore\na\tb\t1\nc\td\t\n", None, "label all rows or none"),
        ("text\tpair\tscore\na\tb\t1\n", "text\tpair\na\tb\n", "dev.tsv: only one of this and"),
    ],
)
def test_tables_that_are_refused(train_text, dev_text, message, tmp_path):
    folder = write(tmp_path, train=train_text, dev=dev_text or train_text)
    with pytest.raises(ValueError, match=message):
        read_task("embedding/pairs", folder)


def test_settings_that_are_refused():
    for change, message in (
        ({"embedding": {"temperature": 0.0}}, r"config.task.embedding.temperature=0.0 must be at"),
        ({"embedding": {"pooling": "max"}}, r"config.task.embedding.pooling must be one of mean"),
    ):
        with pytest.raises(ValueError, match=message):
            config_from_dict({"task": change})
    with pytest.raises(ValueError, match=r"freeze_encoder=True leaves nothing to train"):
        make_task(TaskConfig("embedding/pairs", freeze_encoder=True), ())


def test_the_files_of_glue(tmp_path):
    header = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
    line = "{}\tg\tf\ty\to\ts\ts\t{}\t{}"
    rows = [
        f"{header}\tscore",
        *(f"{line.format(i, 'a', 'b')}\t{s}" for i, s in enumerate((5, 1))),
    ]
    test = f"{header}\n{line.format(0, 'a', 'b')}\n"
    stsb = write(tmp_path / "STS-B", train="\n".join(rows) + "\n", test=test)
    splits = read_task("embedding/stsb", stsb.parent).splits
    assert [example.label for example in splits["train"]] == [1.0, 0.2]
    assert splits["test"][0].label is None

    mnli = ["index\tsentence1\tsentence2\tgold_label"]
    for i, label in enumerate(("neutral", "entailment", "contradiction")):
        mnli.append(f"{i}\ttext {i}\tpair {i}\t{label}")
    text = "\n".join(mnli) + "\n"
    folder = write(tmp_path / "MNLI", train=text, dev_matched=text)
    data = read_task("embedding/nli", folder)
    assert data.labels == ()
    assert data.splits["train"] == [TextExample("1", "text 1", "pair 1", None)]
    all_of_them = read_task("embedding/nli", folder, to_predict=True).splits["validation_matched"]
    assert [example.label for example in all_of_them] == [None] * 3


def settings(data: Path, vocabulary: Path, **train_settings: Any) -> dict[str, Any]:
    return {
        "init_from": "scratch",
        "model": {
            "vocab_size": 60,
            "embedding_size": 16,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 32,
            "initializer_range": 0.1,
        },
        "task": {
            "name": "embedding/pairs",
            "data": str(data),
            "tokenizer": str(vocabulary),
            "max_length": 32,
        },
        "optimizer": {
            "name": "adamw",
            "learning_rate": 3e-3,
            "warmup_steps": 2,
            "bias_correction": True,
        },
        "train": {
            "batch_size": 16,
            "num_steps": 4,
            "dtype": "float32",
            "log_every": 1,
            "eval_every": 2,
            "checkpoint_every": 2,
        }
        | train_settings,
    }


def write_pairs(folder: Path) -> Path:
    """A text and its pair share their first word, which no other has."""
    draw = random.Random(0)
    lines = ["text\tpair"]
    for word in WORDS[:32]:
        a, b = (" ".join([word, *draw.choices(WORDS[32:], k=3)]) for _ in range(2))
        lines.append(f"{a}\t{b}")
    text = "\n".join(lines) + "\n"
    return write(folder, train=text, dev=text)


@pytest.mark.slow
def test_a_run_learns_and_is_evaluated_and_predicted(vocabulary, tmp_path):
    data = write_pairs(tmp_path / "data")
    values = settings(
        data, vocabulary, num_steps=60, eval_every=30, checkpoint_every=30, log_every=30
    )
    one = jax.devices()[:1]
    train(make_experiment(config_from_dict(values | {"mesh": {"data": 1}}), tmp_path / "run", one))
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    recalls = [line["recall_at_1"] for line in lines if "recall_at_1" in line]
    assert max(recalls) > 0.9
    model = albert_jax.load(tmp_path / "run")
    assert model.kind == "embedding"
    a, b, c = model.embed([WORDS[0] + " " + WORDS[40], WORDS[0] + " " + WORDS[41], WORDS[1]])
    assert a @ b > a @ c
    for call in (lambda: model.classify(["tan"]), lambda: model.fill_mask("tan [MASK]")):
        with pytest.raises(ValueError, match=r"this model is for embedding|no masked LM head"):
            call()

    scored = write(tmp_path / "in", rows="text\tpair\tscore\nMorly\ttan\t0\ntan\ttan\t1\n")
    said = predict(str(tmp_path / "run"), str(scored / "rows.tsv"), tmp_path / "out")
    assert json.loads(said[-1]) == {"spearman": pytest.approx(1), "pearson": pytest.approx(1)}
    (table,) = (tmp_path / "out").iterdir()
    first, *rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert first == ["id", "prediction", "text", "pair", "score"]
    assert float(rows[1][1]) == pytest.approx(1)
    x, y = model.embed(["Morly", "tan"])
    assert float(rows[0][1]) == pytest.approx(float(x @ y), abs=1e-5)


@pytest.mark.slow
def test_negatives_are_those_of_all_devices(vocabulary, tmp_path):
    data = write_pairs(tmp_path / "data")
    values, found = settings(data, vocabulary), {}
    for name, mesh, devices in (
        ("one", {"data": 1}, jax.devices()[:1]),
        ("eight", {"data": 4, "fsdp": 2}, None),
    ):
        config = config_from_dict(values | {"mesh": mesh})
        train(make_experiment(config, tmp_path / name, devices))
        found[name] = [
            line.get(key)
            for line in read_metrics(tmp_path / name / "metrics.jsonl")
            for key in ("task_loss", "task_accuracy", "grad_norm", "recall_at_1")
            if key in line
        ]
    assert found["eight"] == pytest.approx(found["one"], rel=1e-4)
    validation = [
        line["recall_at_1"]
        for line in read_metrics(tmp_path / "one" / "metrics.jsonl")
        if "recall_at_1" in line
    ]
    assert evaluate(tmp_path / "eight")["recall_at_1"] == pytest.approx(max(validation))
