"""Your own texts, or pairs of texts, with a score each.

Data:   train.csv and dev.csv (or .tsv, .jsonl, .parquet) in data/mine, with the columns text and
        score, and pair if there is a second text
Train:  python -m albert_jax.train --config configs/finetune/regression.py \\
            --workdir runs/regression --config.init_from=hf:albert/albert-base-v2
Scores: Pearson and Spearman correlation on the dev file
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import own_data_recipe


def get_config() -> ConfigDict:
    """Returns three passes over the examples, however many there are."""
    config = default_config()
    config.update(own_data_recipe("regression"))
    config.task.data = "data/mine"
    return config
