"""SST-2: is a film review for or against?

Data:   GLUE's SST-2/train.tsv and dev.tsv in data/glue, or
        --config.task.data=tfds:glue/sst2
Train:  python -m albert_jax.train --config configs/finetune/sst2.py \\
            --workdir runs/sst2 --config.init_from=hf:albert/albert-base-v2
Scores: accuracy 96.9 with xxlarge (development set, arXiv:1909.11942, Table 9), 92.9 with
        base v2 (google-research/albert README)
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns the recipe in the paper's Table 14."""
    config = default_config()
    config.update(fine_tuning_recipe("glue/sst2"))
    config.task.data = "data/glue"
    return config
