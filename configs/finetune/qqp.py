"""QQP: do two questions ask the same?

Data:   GLUE's QQP/train.tsv and dev.tsv in data/glue, or --config.task.data=tfds:glue/qqp
Train:  python -m albert_jax.train --config configs/finetune/qqp.py \\
            --workdir runs/qqp --config.init_from=hf:albert/albert-base-v2
Scores: accuracy 92.2 with xxlarge (development set, arXiv:1909.11942, Table 9)
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns the recipe in the paper's Table 14."""
    config = default_config()
    config.update(fine_tuning_recipe("glue/qqp"))
    config.task.data = "data/glue"
    return config
