"""The BERT large baseline of the ALBERT paper: 334 M parameters, nothing shared.

Trained like ALBERT (its data, masks, vocabulary, LAMB and 125 k steps of 4096 × 512
tokens) with next sentence prediction, so that the architecture is what differs.

Data:   as configs/base.py
Train:  python -m albert_jax.train --config configs/bert_large.py --workdir runs/bert_large
Work:   2.0 GFLOP per token, 5.2e+20 in total.
Scores: SQuAD 1.1 92.2 F1, SQuAD 2.0 85.0 F1, MNLI 86.6, SST-2 93.0, RACE 73.9
        (development sets, arXiv:1909.11942, Table 2).
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.config.presets import bert_preset


def get_config() -> ConfigDict:
    """Returns BERT's sizes and sentence objective with ALBERT's recipe."""
    config = default_config()
    config.model.update(bert_preset("large"))
    config.data.update(path="data/wikibooks", sentence_objective="nsp")
    return config
