"""The BERT base baseline of the ALBERT paper: 108 M parameters, nothing shared.

Trained like ALBERT (its data, masks, vocabulary, LAMB and 125 k steps of 4096 × 512
tokens) with next sentence prediction, so that the architecture is what differs.

Data:   as configs/base.py
Train:  python -m albert_jax.train --config configs/bert_base.py --workdir runs/bert_base
Work:   588 MFLOP per token, 1.5e+20 in total.
Scores: SQuAD 1.1 90.4 F1, SQuAD 2.0 80.4 F1, MNLI 84.5, SST-2 92.8, RACE 68.2
        (development sets, arXiv:1909.11942, Table 2).
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.config.presets import bert_preset


def get_config() -> ConfigDict:
    """Returns BERT's sizes and sentence objective with ALBERT's recipe."""
    config = default_config()
    config.model.update(bert_preset("base"))
    config.data.update(path="data/wikibooks", sentence_objective="nsp")
    return config
