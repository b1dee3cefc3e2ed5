"""Table 3: the size of the vocabulary's embeddings, E.

ALBERT base with E from 64 to 768, layers sharing all or nothing. Not shared with E = 768, where
nothing is factorized, is BERT's architecture; the paper repeats its BERT base there, and does
not say with which sentence objective. Here all rows have ALBERT's. The row not-shared-128 has
other numbers in Table 4 (MNLI 83.2, Avg 81.6): each table is given as printed.

Source: arXiv:1909.11942v6, Table 3.
Sweep:  python -m albert_jax.sweep configs/paper/table3.py --scale small
        python -m albert_jax.sweep configs/paper/table3.py
One:    python -m albert_jax.train --config configs/paper/table3.py:all-shared-128 \\
            --workdir runs/all-shared-128
        configs/paper/table3.py:all-shared-128,small is the same at the small scale.
Small:  E is 16, 32, 64 and 96 with H = 96, 4 layers, 4,000 steps (see albert_jax/config/paper.py).
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

BASE = "base.py:v1"
ROWS = {
    "not-shared-64": TableRow(
        BASE,
        {"model.share": "none", "model.embedding_size": 64},
        Scores((89.9, 82.9), (80.1, 77.8), 82.9, 91.5, 66.7, 81.3),
        87,
    ),
    "not-shared-128": TableRow(
        BASE,
        {"model.share": "none", "model.embedding_size": 128},
        Scores((89.9, 82.8), (80.3, 77.3), 83.7, 91.5, 67.9, 81.7),
        89,
    ),
    "not-shared-256": TableRow(
        BASE,
        {"model.share": "none", "model.embedding_size": 256},
        Scores((90.2, 83.2), (80.3, 77.4), 84.1, 91.9, 67.3, 81.8),
        93,
    ),
    "not-shared-768": TableRow(
        BASE,
        {"model.share": "none", "model.embedding_size": 768},
        Scores((90.4, 83.2), (80.4, 77.6), 84.5, 92.8, 68.2, 82.3),
        108,
    ),
    "all-shared-64": TableRow(
        BASE,
        {"model.share": "all", "model.embedding_size": 64},
        Scores((88.7, 81.4), (77.5, 74.8), 80.8, 89.4, 63.5, 79.0),
        10,
    ),
    "all-shared-128": TableRow(
        BASE,
        {"model.share": "all", "model.embedding_size": 128},
        Scores((89.3, 82.3), (80.0, 77.1), 81.6, 90.3, 64.0, 80.1),
        12,
    ),
    "all-shared-256": TableRow(
        BASE,
        {"model.share": "all", "model.embedding_size": 256},
        Scores((88.8, 81.5), (79.1, 76.3), 81.5, 90.3, 63.4, 79.6),
        16,
    ),
    "all-shared-768": TableRow(
        BASE,
        {"model.share": "all", "model.embedding_size": 768},
        Scores((88.6, 81.5), (79.2, 76.6), 82.0, 90.6, 63.3, 79.8),
        31,
    ),
}


def get_config(argument: str = "all-shared-128") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
