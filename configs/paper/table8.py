"""Table 8: dropout.

ALBERT xxlarge with and without dropout, after about 1M steps, with the additional data of Table 7.
The paper does not give the rate; 0.1 is that of all its other models.

Source: arXiv:1909.11942v6, Table 8 and section 4.8.
Sweep:  python -m albert_jax.sweep configs/paper/table8.py --scale small
        python -m albert_jax.sweep configs/paper/table8.py
One:    python -m albert_jax.train --config configs/paper/table8.py:without \\
            --workdir runs/without
        configs/paper/table8.py:without,small is the same at the small scale.
Small:  data/small32-more, H = 512, 4 layers (albert_jax/config/paper.py); 2,000 steps, far
        fewer than 1M, so do not expect to see the effect.
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

BASE = "xxlarge.py:v1"
LONG = {"train.num_steps": 1_000_000, "data.path": "data/wikibooks-more"}
DROPOUT = {"model.hidden_dropout_prob": 0.1, "model.attention_probs_dropout_prob": 0.1}
SMALL = {"train.num_steps": 2000}
ROWS = {
    "with": TableRow(
        BASE,
        LONG | DROPOUT,
        Scores((94.7, 89.2), (89.6, 86.9), 90.0, 96.3, 85.7, 90.4),
        small=SMALL | DROPOUT,
    ),
    "without": TableRow(
        BASE, LONG, Scores((94.8, 89.5), (89.9, 87.2), 90.4, 96.5, 86.1, 90.7), small=SMALL
    ),
}


def get_config(argument: str = "without") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
