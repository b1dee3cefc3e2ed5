"""MNLI: does a text entail another, contradict it, or neither?

Data:   GLUE's MNLI/train.tsv, dev_matched.tsv and dev_mismatched.tsv in data/glue, or
        --config.task.data=tfds:glue/mnli
Train:  python -m albert_jax.train --config configs/finetune/mnli.py \\
            --workdir runs/mnli --config.init_from=hf:albert/albert-base-v2
Scores: accuracy 90.8 with xxlarge (development set, arXiv:1909.11942, Table 9), 84.6 with
        base v2 (google-research/albert README)
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns the recipe in the paper's Table 14."""
    config = default_config()
    config.update(fine_tuning_recipe("glue/mnli"))
    config.task.data = "data/glue"
    return config
