"""Sentence embeddings from your own pairs of texts that belong together.

Data:   train.csv and dev.csv (or .tsv, .jsonl, .parquet) in data/mine, with the columns text and
        pair. With a column label or score, from 0 to 1, cosines are to be the scores; without it,
        each text is to find its pair among those of its batch, so larger batches teach more.
Train:  python -m albert_jax.train --config configs/finetune/embedding_pairs.py \\
            --workdir runs/embedding_pairs --config.init_from=hf:albert/albert-base-v2
        --config.task.name=embedding/nli takes MNLI's files and the pairs of which one entails the
        other; --config.task.data=data/glue is where they are.
Scores: recall at 1 on the dev file: how many texts are nearest to their own pair. With scores,
        Spearman and Pearson correlation
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.tasks.registry import own_data_recipe


def get_config() -> ConfigDict:
    """Returns three passes over the examples, however many there are."""
    config = default_config()
    config.update(own_data_recipe("embedding/pairs"))
    config.task.data = "data/mine"
    config.train.batch_size = 64
    return config
