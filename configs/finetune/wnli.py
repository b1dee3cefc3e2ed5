"""WNLI: does a sentence still follow once its pronoun is replaced?

Data:   GLUE's WNLI/train.tsv and dev.tsv in data/glue, or
        --config.task.data=tfds:glue/wnli
Train:  python -m albert_jax.train --config configs/finetune/wnli.py \\
            --workdir runs/wnli --config.init_from=hf:albert/albert-base-v2
        Seeds differ on so little data: --config.task.seeds=[0,1,2,3,4] makes five runs
        and gives their median.
Scores: The paper has none for this set-up. The development set is built against the
        training set: few classifiers of pairs do better than always to say no, 56.3.
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns the recipe in the paper's Table 14."""
    config = default_config()
    config.update(fine_tuning_recipe("glue/wnli"))
    config.task.data = "data/glue"
    return config
