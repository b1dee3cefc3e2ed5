"""Table 7: more data to pretrain on.

ALBERT base on Wikipedia and books alone, or also on what XLNet and RoBERTa were trained on. Both
data sets are prepared beforehand, with one tokenizer:

Data:   data/wikibooks, as configs/base.py says, and data/wikibooks-more with more --input

Source: arXiv:1909.11942v6, Table 7 and section 4.8.
Sweep:  python -m albert_jax.sweep configs/paper/table7.py --scale small
        python -m albert_jax.sweep configs/paper/table7.py
One:    python -m albert_jax.train --config configs/paper/table7.py:without \\
            --workdir runs/without
        configs/paper/table7.py:without,small is the same at the small scale.
Small:  data/small32 and data/small32-more, say Wikipedia alone and with books; H = 96, 4 layers,
        4,000 steps (see albert_jax/config/paper.py).
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

BASE = "base.py:v1"
ROWS = {
    "without": TableRow(BASE, {}, Scores((89.3, 82.3), (80.0, 77.1), 81.6, 90.3, 64.0, 80.1)),
    "with": TableRow(
        BASE,
        {"data.path": "data/wikibooks-more"},
        Scores((88.8, 81.7), (79.1, 76.3), 82.4, 92.8, 66.0, 80.8),
    ),
}


def get_config(argument: str = "without") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
