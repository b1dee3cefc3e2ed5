"""Table 12: width.

ALBERT large with 3 layers and hidden sizes from 1024 to 6144. The paper's 3-layer network of
Table 11 started from a 1-layer one, and is the first row here. The paper does not say whether the
others had such a start; here none has.

Source: arXiv:1909.11942v6, Table 12 and section A.1.
Sweep:  python -m albert_jax.sweep configs/paper/table12.py --scale small
        python -m albert_jax.sweep configs/paper/table12.py
One:    python -m albert_jax.train --config configs/paper/table12.py:1024 \\
            --workdir runs/1024
        configs/paper/table12.py:1024,small is the same at the small scale.
Small:  H = 128, 256, 512 and 768, 3 layers, 4,000 steps (see albert_jax/config/paper.py).
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

BASE = "large.py:v1"
SMALL = {"model.num_hidden_layers": 3}


def width(hidden: int) -> dict[str, int]:
    """Returns three layers of this width. Source: section 3.1, feed-forward 4 H, heads H / 64."""
    return {
        "model.hidden_size": hidden,
        "model.intermediate_size": 4 * hidden,
        "model.num_attention_heads": hidden // 64,
        "model.num_hidden_layers": 3,
    }


ROWS = {
    "1024": TableRow(
        BASE,
        width(1024),
        Scores((79.8, 69.7), (64.4, 61.7), 77.7, 86.7, 54.0, 71.2),
        18,
        small=SMALL,
    ),
    "2048": TableRow(
        BASE,
        width(2048),
        Scores((83.3, 74.1), (69.1, 66.6), 79.7, 88.6, 58.2, 74.6),
        60,
        small=SMALL,
    ),
    "4096": TableRow(
        BASE,
        width(4096),
        Scores((85.0, 76.4), (71.0, 68.1), 80.3, 90.4, 60.4, 76.3),
        225,
        small=SMALL,
    ),
    "6144": TableRow(
        BASE,
        width(6144),
        Scores((84.7, 75.8), (67.8, 65.4), 78.1, 89.1, 56.0, 74.0),
        499,
        small=SMALL,
    ),
}


def get_config(argument: str = "1024") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
