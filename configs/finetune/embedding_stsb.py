"""Sentence embeddings from STS-B: the cosine of two sentences is to be their score.

Data:   GLUE's STS-B/train.tsv and dev.tsv in data/glue, or
        --config.task.data=tfds:glue/stsb
Train:  python -m albert_jax.train --config configs/finetune/embedding_stsb.py \\
            --workdir runs/embedding_stsb --config.init_from=hf:albert/albert-base-v2
        --config.task.embedding.pooling=cls takes [CLS] instead of the mean over the tokens.
Scores: Spearman correlation of the cosines with the scores on the dev file; 84.67 in 100 for BERT
        base on the test file (arXiv:1908.10084, Table 2)
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import fine_tuning_recipe


def get_config() -> ConfigDict:
    """Returns the recipe of Sentence-BERT."""
    config = default_config()
    config.update(fine_tuning_recipe("embedding/stsb"))
    config.task.data = "data/glue"
    return config
