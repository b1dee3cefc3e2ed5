"""CoLA: is a sentence acceptable English?

Data:   GLUE's CoLA/train.tsv and dev.tsv in data/glue, or
        --config.task.data=tfds:glue/cola
Train:  python -m albert_jax.train --config configs/finetune/cola.py \\
            --workdir runs/cola --config.init_from=hf:albert/albert-base-v2
        Seeds differ on so little data: --config.task.seeds=[0,1,2,3,4] makes five runs
        and gives their median.
Scores: Matthews correlation 71.4 with xxlarge (development set, arXiv:1909.11942, Table
        9)
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns the recipe in the paper's Table 14."""
    config = default_config()
    config.update(fine_tuning_recipe("glue/cola"))
    config.task.data = "data/glue"
    return config
