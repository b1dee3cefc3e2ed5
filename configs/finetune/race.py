"""RACE: which of four options answers a question about a passage? From English exams.

Data:   the official RACE folder (train, dev and test, each with middle and high) in
        data/race, or --config.task.data=tfds:race
Train:  python -m albert_jax.train --config configs/finetune/race.py \\
            --workdir runs/race --config.init_from=hf:albert/albert-base-v2
        configs/finetune/race.py:v1 is the paper's recipe, for models of the first
        version; those of the second diverge with it, so its authors halved the rate and
        left out dropout.
        A row is four sequences, an option each: --config.train.grad_accum_steps=N where a
        batch does not fit the devices.
        --config.task.name=race/middle or race/high takes one half.
Scores: accuracy 86.5 with xxlarge on the test set (arXiv:1909.11942, Table 10), 66.8 with
        base v2 (google-research/albert README)
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config(version: str = "v2") -> ConfigDict:
    """Returns the authors' recipe for a version of the models."""
    config = default_config()
    config.update(fine_tuning_recipe("race", version))
    config.task.data = "data/race"
    return config
