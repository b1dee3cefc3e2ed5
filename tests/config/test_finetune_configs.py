"""The fine-tuning configs: the paper's numbers, and commands that work as they stand."""

import ast
import shlex
from pathlib import Path

import pytest
from support.paths import ROOT

from albert_jax.config import Config
from albert_jax.config.load import load_config
from albert_jax.tasks.registry import SPECS, fine_tuning_recipe

FILES = sorted((ROOT / "configs" / "finetune").glob("*.py"))
OWN_DATA = {
    "classification": "classification",
    "regression": "regression",
    "tagging": "conll2003",
    "embedding_pairs": "embedding/pairs",
}
NAMES = [path.stem for path in FILES if path.stem not in OWN_DATA]

# file: task, learning rate, batch, ALBERT dropout, training steps, warmup steps, longest sequence;
# transcribed from arXiv:1909.11942v6, Table 14, a second time.
TABLE_14 = {
    "cola": ("glue/cola", 1.00e-05, 16, 0, 5336, 320, 512),
    "stsb": ("glue/stsb", 2.00e-05, 16, 0, 3598, 214, 512),
    "sst2": ("glue/sst2", 1.00e-05, 32, 0, 20935, 1256, 512),
    "mnli": ("glue/mnli", 3.00e-05, 128, 0, 10000, 1000, 512),
    "qnli": ("glue/qnli", 1.00e-05, 32, 0, 33112, 1986, 512),
    "qqp": ("glue/qqp", 5.00e-05, 128, 0.1, 14000, 1000, 512),
    "rte": ("glue/rte", 3.00e-05, 32, 0.1, 800, 200, 512),
    "mrpc": ("glue/mrpc", 2.00e-05, 32, 0, 800, 200, 512),
    "wnli": ("glue/wnli", 2.00e-05, 16, 0.1, 2000, 250, 512),
    "squad_v1": ("squad/v1.1", 5.00e-05, 48, 0, 3649, 365, 384),
    "squad_v2": ("squad/v2.0", 3.00e-05, 48, 0, 8144, 814, 512),
    "race:v1": ("race", 2.00e-05, 32, 0.1, 12000, 1000, 512),
}
OTHERS = {
    # As the table but for what google-research/albert's README says of the second version.
    "race": ("race", 1.00e-05, 32, 0, 12000, 1000, 512),
    "race:v2": ("race", 1.00e-05, 32, 0, 12000, 1000, 512),
    # 14,041 sentences four times, a tenth of it to warm up.
    "conll2003": ("conll2003", 3.00e-05, 32, 0, -(-14_041 * 4 // 32), 176, 512),
    # Sentence-BERT: 5,749 pairs four times, a tenth of it to warm up.
    "embedding_stsb": ("embedding/stsb", 2.00e-05, 16, 0, -(-5_749 // 16) * 4, 144, 128),
}


def load(name: str, words: tuple[str, ...] = ()) -> Config:
    stem, colon, version = name.partition(":")
    return load_config(f"{ROOT}/configs/finetune/{stem}.py{colon}{version}", words)


def document(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def commands(file: Path) -> list[list[str]]:
    """The words of each `python -m …` in a file's document."""
    lines = document(file).replace("\\\n", " ").splitlines()
    return [shlex.split(line[line.index("python -m") :]) for line in lines if "python -m" in line]


@pytest.mark.parametrize("name", [*TABLE_14, *OTHERS])
def test_the_numbers_are_the_published_ones(name):
    config = load(name)
    model, optimizer, train, task = config.model, config.optimizer, config.train, config.task
    assert (
        task.name,
        optimizer.learning_rate,
        train.batch_size,
        model.hidden_dropout_prob,
        train.num_steps,
        optimizer.warmup_steps,
        task.max_length,
    ) == (TABLE_14 | OTHERS)[name]
    assert model.attention_probs_dropout_prob == model.hidden_dropout_prob
    assert task.classifier_dropout == 0.1
    assert (optimizer.name, optimizer.schedule) == ("adamw", "linear")
    assert (optimizer.weight_decay, optimizer.eps, optimizer.clip_norm) == (0.01, 1e-6, 1.0)
    assert optimizer.bias_correction
    assert train.dtype == "bfloat16"


def test_every_file_is_in_a_table_and_names_a_task():
    assert {name.partition(":")[0] for name in TABLE_14 | OTHERS} == set(NAMES)
    assert {load(name).task.name for name in NAMES} == SPECS.keys() - {
        "glue/ax",  # has no examples to train on
        "race/middle",
        "race/high",
        "classification",
        "regression",
        "embedding/pairs",
        "embedding/nli",
        # Trained with the files for data of your own, by `--config.task.name`.
        *(name for name in SPECS if name.startswith(("clue/", "xnli/"))),
    }


@pytest.mark.parametrize("name", NAMES)
def test_runs_are_evaluated_and_saved_ten_times(name):
    config = load(name)
    train = config.train
    evaluated = {*range(train.eval_every, train.num_steps, train.eval_every), train.num_steps}
    assert len(evaluated) == 10
    assert train.checkpoint_every % train.eval_every == 0
    assert train.log_every < train.eval_every
    assert config.init_from == ""  # so that it has to be given
    assert config.task.data


@pytest.mark.parametrize(("name", "task"), OWN_DATA.items())
def test_steps_for_data_of_your_own_follow_from_the_examples(name, task):
    config = load(name)
    assert config.task.name == task
    assert config.train.num_epochs == 3
    assert config.optimizer.warmup_fraction == 0.1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_how_it_is_run(file):
    found = commands(file)
    assert any(f"configs/finetune/{file.name}" in words for words in found)
    for words in found:
        assert words[:4] == ["python", "-m", "albert_jax.train", "--config"]
        path, workdir, overrides = words[4], words[5:7], words[7:]
        assert workdir == ["--workdir", f"runs/{Path(path).stem}"]
        config = load_config(str(ROOT / path), overrides)
        assert config.init_from
        # What a run begins with is published, or is what another of the commands makes.
        made = [f"runs/{Path(other[4]).stem}" for other in found]
        assert config.init_from.startswith("hf:albert/") or config.init_from in made
    text = document(file)
    for word in text.replace(",", " ").split():
        if word.startswith("--config.") and "=" in word and not word.endswith("=N"):
            load(file.stem, (word.rstrip("."),))
    assert "Data:" in text
    assert "Scores:" in text


@pytest.mark.parametrize("name", ["rte", "stsb", "mrpc"])
def test_three_begin_with_mnli(name):
    first, second = commands(ROOT / "configs" / "finetune" / f"{name}.py")
    assert first[4] == "configs/finetune/mnli.py"
    assert "--config.init_from=runs/mnli" in second


def test_what_has_no_recipe_is_refused():
    with pytest.raises(ValueError, match=r"no recipe for 'glue/ax' 'v2': tasks are glue/cola"):
        fine_tuning_recipe("glue/ax")
    with pytest.raises(ValueError, match="versions are v1, v2"):
        load("race:v3")
