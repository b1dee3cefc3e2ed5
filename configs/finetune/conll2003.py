"""CoNLL-2003: persons, places, organisations and other names in English news.

Data:   the official eng.train and eng.testa in data/conll2003, or
        --config.task.data=tfds:conll2003
Train:  python -m albert_jax.train --config configs/finetune/conll2003.py \\
            --workdir runs/conll2003 --config.init_from=hf:albert/albert-base-v2
Scores: none known: the paper did not try it, and the recipe is not from there, but one
        that BERT's authors give for fine-tuning (4 epochs). ALBERT's vocabulary has no
        capitals, which help to recognize names.
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns a learning rate, batch size and number of epochs that BERT's authors tried."""
    config = default_config()
    config.update(fine_tuning_recipe("conll2003"))
    config.task.data = "data/conll2003"
    return config
