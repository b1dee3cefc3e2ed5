"""Table 11: depth.

ALBERT large with 1 to 48 layers. From 3 on, each starts from the parameters of the previous one,
as in the paper; since all layers share them, they fit any depth. The paper does not say how many
steps each takes after that; here it is all of them.

Source: arXiv:1909.11942v6, Table 11 and section A.1.
Sweep:  python -m albert_jax.sweep configs/paper/table11.py --scale small
        python -m albert_jax.sweep configs/paper/table11.py
One:    python -m albert_jax.train --config configs/paper/table11.py:1 \\
            --workdir runs/1
        configs/paper/table11.py:1,small is the same at the small scale.
Small:  H = 128, the depths as they are, 4,000 steps each (see albert_jax/config/paper.py).
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

BASE = "large.py:v1"
ROWS = {
    "1": TableRow(
        BASE,
        {"model.num_hidden_layers": 1},
        Scores((31.1, 22.9), (50.1, 50.1), 66.4, 80.8, 40.1, 52.9),
        18,
        small={"model.num_hidden_layers": 1},
    ),
    "3": TableRow(
        BASE,
        {"model.num_hidden_layers": 3},
        Scores((79.8, 69.7), (64.4, 61.7), 77.7, 86.7, 54.0, 71.2),
        18,
        small={"model.num_hidden_layers": 3},
        start="1",
    ),
    "6": TableRow(
        BASE,
        {"model.num_hidden_layers": 6},
        Scores((86.4, 78.4), (73.8, 71.1), 81.2, 88.9, 60.9, 77.2),
        18,
        small={"model.num_hidden_layers": 6},
        start="3",
    ),
    "12": TableRow(
        BASE,
        {"model.num_hidden_layers": 12},
        Scores((89.8, 83.3), (80.7, 77.9), 83.3, 91.7, 66.7, 81.5),
        18,
        small={"model.num_hidden_layers": 12},
        start="6",
    ),
    "24": TableRow(
        BASE,
        {"model.num_hidden_layers": 24},
        Scores((90.3, 83.3), (81.8, 79.0), 83.3, 91.5, 68.7, 82.1),
        18,
        small={"model.num_hidden_layers": 24},
        start="12",
    ),
    "48": TableRow(
        BASE,
        {"model.num_hidden_layers": 48},
        Scores((90.0, 83.1), (81.8, 78.9), 83.4, 91.9, 66.9, 81.8),
        18,
        small={"model.num_hidden_layers": 48},
        start="24",
    ),
}


def get_config(argument: str = "1") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
