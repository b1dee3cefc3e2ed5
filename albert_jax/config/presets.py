"""Settings of what was published: ALBERT's sizes, the BERT baseline, fine-tuning recipes."""

from typing import Any, NamedTuple

# name: (hidden, feed-forward, heads, layers). Source: arXiv:1909.11942, Table 1; the
# published xlarge checkpoint has 16 heads where the table says 32.
_ALBERT_SIZES = {
    "base": (768, 3072, 12, 12),
    "large": (1024, 4096, 16, 24),
    "xlarge": (2048, 8192, 16, 24),
    "xxlarge": (4096, 16384, 64, 12),
}


def albert_preset(size: str, version: str = "v2") -> dict[str, Any]:
    """Model settings of a published ALBERT; v1 has dropout 0.1, but for xxlarge.

    Raises:
      ValueError: for a size or version that was not published.
    """
    if size not in _ALBERT_SIZES or version not in ("v1", "v2"):
        raise ValueError(
            f"no ALBERT {size!r} {version!r}: sizes are {', '.join(_ALBERT_SIZES)}; "
            "versions are v1, v2"
        )
    hidden, feed_forward, heads, layers = _ALBERT_SIZES[size]
    dropout = 0.1 if version == "v1" and size != "xxlarge" else 0.0
    return {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def bert_preset(size: str) -> dict[str, Any]:
    """Model settings of the BERT baseline: nothing shared, no embedding factorization.

    Source: arXiv:1810.04805, section 3 (base and large have ALBERT's dimensions).

    Raises:
      ValueError: for a size other than base and large.
    """
    if size not in ("base", "large"):
        raise ValueError(f"no BERT {size!r}: sizes are base, large")
    preset = albert_preset(size, "v1")  # the dimensions and the dropout are the same
    return preset | {"share": "none", "embedding_size": preset["hidden_size"]}


class _Recipe(NamedTuple):
    """A row of the table below; `dropout` is the encoder's."""

    learning_rate: float
    batch_size: int
    dropout: float
    num_steps: int
    warmup_steps: int
    max_length: int


# Source: arXiv:1909.11942, Table 14, but for CoNLL-2003, which ALBERT's authors did not try:
# there it is a rate, a batch and a number of epochs (4) that BERT's did (arXiv:1810.04805, A.3).
_RECIPES = {
    "glue/cola": _Recipe(1e-5, 16, 0.0, 5336, 320, 512),
    "glue/stsb": _Recipe(2e-5, 16, 0.0, 3598, 214, 512),
    "glue/sst2": _Recipe(1e-5, 32, 0.0, 20935, 1256, 512),
    "glue/mnli": _Recipe(3e-5, 128, 0.0, 10000, 1000, 512),
    "glue/qnli": _Recipe(1e-5, 32, 0.0, 33112, 1986, 512),
    "glue/qqp": _Recipe(5e-5, 128, 0.1, 14000, 1000, 512),
    "glue/rte": _Recipe(3e-5, 32, 0.1, 800, 200, 512),
    "glue/mrpc": _Recipe(2e-5, 32, 0.0, 800, 200, 512),
    "glue/wnli": _Recipe(2e-5, 16, 0.1, 2000, 250, 512),
    "squad/v1.1": _Recipe(5e-5, 48, 0.0, 3649, 365, 384),
    "squad/v2.0": _Recipe(3e-5, 48, 0.0, 8144, 814, 512),
    "race": _Recipe(2e-5, 32, 0.1, 12000, 1000, 512),
    "conll2003": _Recipe(3e-5, 32, 0.0, 1756, 176, 512),
}
# The second version's models diverge on RACE with the paper's rate; elsewhere nothing differs.
# Source: google-research/albert README, October 31, 2019.
_RACE_V2 = _RECIPES["race"]._replace(learning_rate=1e-5, dropout=0.0)


def fine_tuning_recipe(task: str, version: str = "v2") -> dict[str, dict[str, Any]]:
    """Settings by group for fine-tuning a published ALBERT, but for `init_from` and `task.data`.

    The run is evaluated, and saved where it is the best yet, ten times.

    Raises:
      ValueError: for a task without a recipe, or a version that was not published.
    """
    if task not in _RECIPES or version not in ("v1", "v2"):
        raise ValueError(
            f"no recipe for {task!r} {version!r}: tasks are {', '.join(_RECIPES)}; versions are "
            "v1, v2"
        )
    recipe = _RACE_V2 if (task, version) == ("race", "v2") else _RECIPES[task]
    tenth = -(-recipe.num_steps // 10)
    return {
        "model": {
            "hidden_dropout_prob": recipe.dropout,
            "attention_probs_dropout_prob": recipe.dropout,
        },
        "optimizer": {
            "name": "adamw",
            "learning_rate": recipe.learning_rate,
            "warmup_steps": recipe.warmup_steps,
            "schedule": "linear",
            "weight_decay": 0.01,
            "eps": 1e-6,
            "clip_norm": 1.0,
            # The original has none. Without it the first steps are larger, and on small data
            # more runs fail. Source: arXiv:2006.04884 and 2006.05987.
            "bias_correction": True,
        },
        "train": {
            "batch_size": recipe.batch_size,
            "num_steps": recipe.num_steps,
            "log_every": 50,
            "eval_every": tenth,
            "checkpoint_every": tenth,
            "keep_checkpoints": 1,  # besides the best
        },
        "task": {"name": task, "max_length": recipe.max_length, "classifier_dropout": 0.1},
    }
