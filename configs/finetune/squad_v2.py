"""SQuAD 2.0: where in a paragraph is the answer to a question, if it is there?

Data:   the official train-v2.0.json and dev-v2.0.json in data/squad, or
        --config.task.data=tfds:squad/v2.0
Train:  python -m albert_jax.train --config configs/finetune/squad_v2.py \\
            --workdir runs/squad_v2 --config.init_from=hf:albert/albert-base-v2
Scores: F1 90.2 and exact match 87.4 with xxlarge (development set, arXiv:1909.11942,
        Table 10), 82.1 and 79.3 with base v2 (google-research/albert README); the run
        writes them as best_f1 and best_exact
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns the recipe in the paper's Table 14."""
    config = default_config()
    config.update(fine_tuning_recipe("squad/v2.0"))
    config.task.data = "data/squad"
    return config
