"""Table 5: no sentence objective, next sentence prediction, or sentence order.

ALBERT base. Each model's MLM accuracy is measured on held-out examples made as its own were in
training; its sentence accuracies on held-out pairs of both kinds, with the head as it is: 0 says
that B follows A, 1 that it does not. So the one that was taught neither answers with a head that
was never trained, as the paper's "random-guess performance for the None condition" has it.

Source: arXiv:1909.11942v6, Table 5 and section 4.6.
Sweep:  python -m albert_jax.sweep configs/paper/table5.py --scale small
        python -m albert_jax.sweep configs/paper/table5.py
One:    python -m albert_jax.train --config configs/paper/table5.py:sop \\
            --workdir runs/sop
        configs/paper/table5.py:sop,small is the same at the small scale.
Small:  H = 96, 4 layers, 4,000 steps (see albert_jax/config/paper.py).
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

BASE = "base.py:v1"
ROWS = {
    "none": TableRow(
        BASE,
        {"data.sentence_objective": "none"},
        Scores((88.6, 81.5), (78.1, 75.3), 81.5, 89.9, 61.7, 79.0, (54.9, 52.4, 53.3)),
    ),
    "nsp": TableRow(
        BASE,
        {"data.sentence_objective": "nsp"},
        Scores((88.4, 81.5), (77.2, 74.6), 81.6, 91.1, 62.3, 79.2, (54.5, 90.5, 52.0)),
    ),
    "sop": TableRow(
        BASE,
        {"data.sentence_objective": "sop"},
        Scores((89.3, 82.3), (80.0, 77.1), 82.0, 90.3, 64.0, 80.1, (54.0, 78.9, 86.5)),
    ),
}


def get_config(argument: str = "sop") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
