"""The command `convert`: from every format to every other, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.models import TINY, tiny_config, tiny_model
from support.params import equal_trees, random_params
from support.pieces import MASK, train_tokenizer
from support.tiny_runs import write_config

import albert_jax
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.formats.variables import DIALECTS, variables
from albert_jax.checkpoints.read import read
from albert_jax.checkpoints.weights import Moments, Weights
from albert_jax.config import default_config
from albert_jax.convert import main, write_run
from albert_jax.data.tokenizers import read_vocabulary
from albert_jax.model.heads import KINDS

CONFIG = tiny_model(vocab_size=60)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory of random weights and moments at step 7."""
    folder = tmp_path_factory.mktemp("run")
    texts = ["a short text", "and a rather longer text, with more of the words"]
    texts += [f"words and more words {i}" for i in range(300)]
    train_tokenizer(texts, folder / "vocabulary", 60)
    params, mu, nu = (random_params(CONFIG, seed=seed) for seed in range(3))
    vocabulary = read_vocabulary(folder / "vocabulary")
    weights = Weights(CONFIG, params, "pretraining", vocabulary, Moments(mu, nu), 7)
    write_run(weights, folder / "run", tiny_config(model={"vocab_size": 60}))
    return folder / "run"


def convert(source: Path, output: Path, to: str, *more: str) -> int:
    return main(["--input", str(source), "--output", str(output), "--to", to, *more])


TENSORFLOW = [pytest.mark.tensorflow, pytest.mark.slow]


@pytest.mark.parametrize(
    "way",
    [
        ["hf"],
        ["orbax"],
        pytest.param(["tf"], marks=TENSORFLOW),
        pytest.param(["hf", "tf", "orbax", "tf", "hf"], marks=TENSORFLOW),
    ],
)
def test_every_way_round_is_exact(way, run, tmp_path):
    source = run
    for i, to in enumerate(way):
        output = tmp_path / f"{i}_{to}"
        assert convert(source, output, to) == 0
        source = output
    before, after = read(run, with_moments=True), read(source, with_moments=True)
    assert equal_trees(after.params, before.params)
    assert (after.config, after.kind) == (CONFIG, "pretraining")
    assert after.vocabulary == before.vocabulary
    if "hf" in way:
        assert after.moments is None
    else:
        assert equal_trees(after.moments, before.moments)
        assert after.step == 7
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_directory_of_transformers_is_used_like_a_run(run, tmp_path):
    assert convert(run, tmp_path / "hf", "hf") == 0
    ours, theirs = albert_jax.load(run), albert_jax.load(tmp_path / "hf")
    text = "a [MASK] text"
    assert ours.fill_mask(text, top_k=3) == theirs.fill_mask(text, top_k=3)
    assert (theirs([text]).input_ids == MASK).sum() == 1
    assert theirs.heads == KINDS["pretraining"]


def test_heads_that_are_not_there_are_not_used(run, tmp_path):
    weights = read(run)
    params = {part: weights.params[part] for part in ("embeddings", "encoder", "classifier")[:2]}
    write_hf(weights._replace(params=params, kind="encoder", vocabulary=None), tmp_path)
    model = albert_jax.load(tmp_path)
    ids = np.array([[2, 9, 4, 3]])
    encoded = model.encode_ids(ids, np.zeros_like(ids), np.ones_like(ids))
    assert encoded.pooled_output is None
    whole = albert_jax.load(run).encode_ids(ids, np.zeros_like(ids), np.ones_like(ids))
    np.testing.assert_array_equal(encoded.hidden_states, whole.hidden_states)
    with pytest.raises(ValueError, match="came without a vocabulary"):
        model(["a text"])
    with pytest.raises(ValueError, match="no masked LM head"):
        model.fill_mask("a [MASK]")


def test_without_moments_a_run_begins_at_step_0(run, tmp_path):
    assert convert(run, tmp_path / "hf", "hf") == 0
    assert convert(tmp_path / "hf", tmp_path / "run", "orbax") == 0
    again = read(tmp_path / "run", with_moments=True)
    assert (again.step, again.moments) == (0, None)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("share", ["all", "none"])
def test_no_two_variables_share_a_name(dialect, share):
    size = {"embedding_size": 32} if dialect == "bert" else {}
    config = tiny_model(share=share, num_hidden_groups=2, inner_group_num=1, **size)
    found = variables(config, KINDS["pretraining"], dialect)
    assert len({v.name for v in found}) == len(found) > 30
    assert len({(v.path, v.layer) for v in found}) == len(found)


def config_file(folder: Path, **groups: dict) -> str:
    values = default_config().to_dict()
    values["model"] |= TINY | {"vocab_size": 60} | groups.get("model", {})
    values["data"] |= {"seq_len": 32}
    values["optimizer"] |= {"warmup_steps": 1}
    values["train"] |= {"num_steps": 20} | groups.get("train", {})
    return str(write_config(folder / "some.py", values))


def test_a_run_has_the_settings_that_it_will_go_on_with(run, tmp_path):
    config = config_file(tmp_path)
    more = ["--config", config, "--config.optimizer.learning_rate=0.5"]
    assert convert(run, tmp_path / "out", "orbax", *more) == 0
    record = json.loads((tmp_path / "out" / "config.json").read_text())
    assert record["config"]["optimizer"]["learning_rate"] == 0.5
    assert record["config"]["train"]["num_steps"] == 20
    assert record["data_fingerprint"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(source="nowhere"), "there is no model at 'nowhere'"),
        (lambda c: c.update(more=["--step", "3"]), "no checkpoint of step 3"),
        (lambda c: c.update(more=["--colour", "red"]), "unknown argument '--colour'"),
        (lambda c: c.update(more=["--config", "x.py"]), "--config applies only to --to orbax"),
        (lambda c: c["output"].write_text("mine"), "exists and is not empty"),
        (
            lambda c: c.update(to="orbax", more=["--config", c["file"](train={"num_steps": 7})]),
            "num_steps=7, but 7 steps are done",
        ),
        (
            lambda c: c.update(
                to="orbax", more=["--config", c["file"](model={"hidden_size": 64})]
            ),
            "model.hidden_size is 32, but this run has 64",
        ),
    ],
)
def test_what_is_refused_leaves_nothing_behind(change, message, run, tmp_path, capsys):
    call = {"source": run, "output": tmp_path / "out", "to": "hf", "more": []}
    (tmp_path / "configs").mkdir()
    call["file"] = lambda **groups: config_file(tmp_path / "configs", **groups)
    change(call)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert convert(call["source"], call["output"], call["to"], *call["more"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert len(said.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
