"""Table 6: BERT large and ALBERT xxlarge, trained for about the same time.

34 hours of 400k steps of BERT large, 32 of 125k steps of ALBERT xxlarge on the paper's TPUs; on
other machines the steps of equal time are others, and --config.train.num_steps sets them for one
row at a time (--row).

Source: arXiv:1909.11942v6, Table 6 and section 4.7.
Sweep:  python -m albert_jax.sweep configs/paper/table6.py --scale small
        python -m albert_jax.sweep configs/paper/table6.py
One:    python -m albert_jax.train --config configs/paper/table6.py:albert-xxlarge \\
            --workdir runs/albert-xxlarge
        configs/paper/table6.py:albert-xxlarge,small is the same at the small scale.
Small:  widths / 8, E / 4, depths / 3; 12,800 and 4,000 steps, the paper's ratio
        (see albert_jax/config/paper.py).
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

ROWS = {
    "bert-large": TableRow(
        "bert_large.py",
        {"train.num_steps": 400_000},
        Scores((93.5, 87.4), (86.9, 84.3), 87.8, 94.6, 77.3, 87.2),
    ),
    "albert-xxlarge": TableRow(
        "xxlarge.py:v1",
        {"train.num_steps": 125_000},
        Scores((94.0, 88.1), (88.3, 85.3), 87.8, 95.4, 82.5, 88.7),
    ),
}


def get_config(argument: str = "albert-xxlarge") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
