"""Table 13: depth of a very wide model.

ALBERT xxlarge with 12 and 24 layers. The paper warm-starts its xxlarge from 6 layers
(section A.1, footnote); here both start from scratch.

Source: arXiv:1909.11942v6, Table 13 and section A.2.
Sweep:  python -m albert_jax.sweep configs/paper/table13.py --scale small
        python -m albert_jax.sweep configs/paper/table13.py
One:    python -m albert_jax.train --config configs/paper/table13.py:12 \\
            --workdir runs/12
        configs/paper/table13.py:12,small is the same at the small scale.
Small:  H = 512, 4 and 8 layers, 4,000 steps (see albert_jax/config/paper.py).
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

BASE = "xxlarge.py:v1"
ROWS = {
    "12": TableRow(
        BASE,
        {"model.num_hidden_layers": 12},
        Scores((94.0, 88.1), (88.3, 85.3), 87.8, 95.4, 82.5, 88.7),
    ),
    "24": TableRow(
        BASE,
        {"model.num_hidden_layers": 24},
        Scores((94.1, 88.3), (88.1, 85.1), 88.0, 95.2, 82.3, 88.7),
    ),
}


def get_config(argument: str = "12") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
