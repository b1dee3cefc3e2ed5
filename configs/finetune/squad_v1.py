"""SQuAD 1.1: where in a paragraph is the answer to a question?

Data:   the official train-v1.1.json and dev-v1.1.json in data/squad, or
        --config.task.data=tfds:squad/v1.1
Train:  python -m albert_jax.train --config configs/finetune/squad_v1.py \\
            --workdir runs/squad_v1 --config.init_from=hf:albert/albert-base-v2
Scores: F1 94.8 and exact match 89.3 with xxlarge (development set, arXiv:1909.11942,
        Table 10), 90.2 and 83.2 with base v2 (google-research/albert README)
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns the recipe in the paper's Table 14."""
    config = default_config()
    config.update(fine_tuning_recipe("squad/v1.1"))
    config.task.data = "data/squad"
    return config
