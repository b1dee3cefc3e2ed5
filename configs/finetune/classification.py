"""Your own texts, or pairs of texts, in classes.

Data:   train.csv and dev.csv (or .tsv, .jsonl, .parquet) in data/mine, with the columns text and
        label, and pair if there is a second text
Train:  python -m albert_jax.train --config configs/finetune/classification.py \\
            --workdir runs/classification --config.init_from=hf:albert/albert-base-v2
Scores: accuracy and macro F1 on the dev file
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import own_data_recipe


def get_config() -> ConfigDict:
    """Returns three passes over the examples, however many there are."""
    config = default_config()
    config.update(own_data_recipe("classification"))
    config.task.data = "data/mine"
    return config
