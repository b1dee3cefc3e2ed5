"""Table 2: ALBERT's sizes compared with BERT's.

BERT is trained with next sentence prediction, ALBERT with sentence order. The paper does not say
whether its xxlarge had dropout here; the published first version, which this is, had none. The
paper gives xxlarge 235 M parameters, in the text 233 M and in Table 12 225 M; it has 223 M.

Source: arXiv:1909.11942v6, Table 2.
Sweep:  python -m albert_jax.sweep configs/paper/table2.py --scale small
        python -m albert_jax.sweep configs/paper/table2.py
One:    python -m albert_jax.train --config configs/paper/table2.py:albert-base \\
            --workdir runs/albert-base
        configs/paper/table2.py:albert-base,small is the same at the small scale.
Small:  widths / 8, E / 4, depths / 3, 4,000 steps (see albert_jax/config/paper.py).
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

ROWS = {
    "bert-base": TableRow(
        "bert_base.py", {}, Scores((90.4, 83.2), (80.4, 77.6), 84.5, 92.8, 68.2, 82.3), 108
    ),
    "bert-large": TableRow(
        "bert_large.py", {}, Scores((92.2, 85.5), (85.0, 82.2), 86.6, 93.0, 73.9, 85.2), 334
    ),
    "albert-base": TableRow(
        "base.py:v1", {}, Scores((89.3, 82.3), (80.0, 77.1), 81.6, 90.3, 64.0, 80.1), 12
    ),
    "albert-large": TableRow(
        "large.py:v1", {}, Scores((90.6, 83.9), (82.3, 79.4), 83.5, 91.7, 68.5, 82.4), 18
    ),
    "albert-xlarge": TableRow(
        "xlarge.py:v1", {}, Scores((92.5, 86.1), (86.1, 83.1), 86.4, 92.4, 74.8, 85.5), 60
    ),
    "albert-xxlarge": TableRow(
        "xxlarge.py:v1", {}, Scores((94.1, 88.3), (88.1, 85.1), 88.0, 95.2, 82.3, 88.7), 235
    ),
}


def get_config(argument: str = "albert-base") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
