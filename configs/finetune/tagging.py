"""Your own tagged words, such as named entities.

Data:   train.txt and dev.txt in data/mine: a word and its tag on each line, an empty line after
        each sentence
Train:  python -m albert_jax.train --config configs/finetune/tagging.py \\
            --workdir runs/tagging --config.init_from=hf:albert/albert-base-v2
Scores: entity F1, precision and recall on the dev file
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import own_data_recipe


def get_config() -> ConfigDict:
    """Returns three passes over the examples, however many there are."""
    config = default_config()
    config.update(own_data_recipe("conll2003"))
    config.task.data = "data/mine"
    return config
