"""The configs of the paper's tables: its numbers, its models' sizes, and the small scale."""

import ast
import dataclasses
import runpy
import shlex

import jax
import numpy as np
import pytest
from flax import nnx
from support.paths import ROOT

from albert_jax.config import Config, ModelConfig
from albert_jax.config.load import load_config
from albert_jax.model import Albert

TABLES = {path.stem: path for path in sorted((ROOT / "configs" / "paper").glob("*.py"))}
ROWS = {
    (table, name): row
    for table, path in TABLES.items()
    for name, row in runpy.run_path(str(path))["ROWS"].items()
}
COUNTED = {key: row for key, row in ROWS.items() if row.parameters is not None}
# The paper's 235 M are 233 M in its text and 225 M in its Table 12; see table2.py.
MISCOUNTED = {("table2", "albert-xxlarge"): 223}


def load(key: tuple[str, str], scale: str = "") -> Config:
    table, name = key
    return load_config(f"{TABLES[table]}:{name}{scale}")


def encoder_size(model: ModelConfig) -> int:
    """Parameters of embeddings, encoder and pooler, without the heads of pretraining."""
    network = nnx.eval_shape(lambda: Albert(model, ("pooler",), rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


def test_every_table_with_experiments_is_there():
    assert set(TABLES) == {f"table{i}" for i in (2, 3, 4, 5, 6, 7, 8, 11, 12, 13)}


@pytest.mark.parametrize("key", COUNTED, ids="-".join)
def test_parameter_counts_are_the_papers(key):
    millions = encoder_size(load(key).model) / 1e6
    # The paper rounds to millions, some up and some down, and its larger ones more coarsely.
    printed = MISCOUNTED.get(key, COUNTED[key].parameters)
    assert millions == pytest.approx(printed, rel=0.025, abs=0.6)


@pytest.mark.parametrize("key", ROWS, ids="-".join)
def test_the_papers_averages_follow_from_its_scores(key):
    """A score copied wrongly by more than some tenths shows: the average is that of the five."""
    scores = ROWS[key].scores
    parts = [np.mean(scores.squad_v1), np.mean(scores.squad_v2)]
    average = np.mean([*parts, scores.mnli, scores.sst2, scores.race])
    assert scores.avg == pytest.approx(average, abs=0.0501)  # rounded to a tenth


@pytest.mark.parametrize("key", ROWS, ids="-".join)
def test_a_row_is_its_base_but_for_its_changes(key):
    row, config = ROWS[key], load(key)
    base = load_config(f"{ROOT}/configs/{row.base}")
    differing = {
        f"{group}.{name}": value
        for group in ("model", "data", "optimizer", "train", "task")
        for name, value in vars(getattr(config, group)).items()
        if value != getattr(getattr(base, group), name)
    }
    assert differing.items() <= row.changes.items()
    assert config.init_from == (f"runs/{key[0]}/{row.start}" if row.start else "")


@pytest.mark.parametrize("key", ROWS, ids="-".join)
def test_small_rows_are_small_and_the_same_experiment(key):
    row, config, small = ROWS[key], load(key), load(key, ",small")
    hidden = small.model.hidden_size
    assert hidden * 8 == config.model.hidden_size
    assert small.model.embedding_size == min(config.model.embedding_size // 4, hidden)
    assert hidden % small.model.num_attention_heads == 0
    assert small.model.vocab_size == 8000
    assert small.model.share == config.model.share
    assert small.model.hidden_dropout_prob == row.small.get("model.hidden_dropout_prob", 0)
    assert small.data.sentence_objective == config.data.sentence_objective
    assert small.optimizer.name == "adamw"
    assert small.train.batch_size * small.data.seq_len == 2048
    steps = round(4000 * config.train.num_steps / 125_000)
    assert small.train.num_steps == row.small.get("train.num_steps", steps)
    assert small.train.unroll == 1
    assert small.data.path.startswith(f"data/small{small.data.seq_len}")
    assert encoder_size(small.model) < 12e6


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_a_table_differ_at_both_scales(table):
    names = [name for of, name in ROWS if of == table]
    for scale in ("", ",small"):
        configs = [dataclasses.replace(load((table, name), scale), init_from="") for name in names]
        assert len(set(configs)) == len(names)


@pytest.mark.parametrize("table", TABLES)
def test_a_file_says_how_it_is_run(table):
    text = ast.get_docstring(ast.parse(TABLES[table].read_text())) or ""
    lines = text.replace("\\\n", " ").splitlines()
    assert text.startswith(f"Table {table.removeprefix('table')}: ")
    assert "arXiv:1909.11942v6, Table" in text
    commands = [shlex.split(x[x.index("python") :]) for x in lines if "python -m" in x]
    assert [words[2] for words in commands] == ["albert_jax.sweep"] * 2 + ["albert_jax.train"]
    assert commands[0][3:] == [f"configs/paper/{table}.py", "--scale", "small"]
    load_config(str(ROOT / commands[2][4]))


@pytest.mark.parametrize(
    ("argument", "message"),
    [("spo", "no row 'spo'; did you mean 'sop'"), ("sop,tiny", "unknown scale 'tiny'")],
)
def test_what_is_not_there_is_refused(argument, message):
    with pytest.raises(ValueError, match=message):
        load(("table5", argument))


def test_table_five_has_the_three_accuracies_and_no_other_table():
    assert {key for key, row in ROWS.items() if row.scores.intrinsic} == {
        ("table5", name) for name in ("none", "nsp", "sop")
    }
