"""QNLI: does a sentence answer a question?

Data:   GLUE's QNLI/train.tsv and dev.tsv in data/glue, or
        --config.task.data=tfds:glue/qnli
Train:  python -m albert_jax.train --config configs/finetune/qnli.py \\
            --workdir runs/qnli --config.init_from=hf:albert/albert-base-v2
Scores: accuracy 95.3 with xxlarge (development set, arXiv:1909.11942, Table 9)
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns the recipe in the paper's Table 14."""
    config = default_config()
    config.update(fine_tuning_recipe("glue/qnli"))
    config.task.data = "data/glue"
    return config
