"""Table 4: which blocks the layers share.

ALBERT base that shares all, attention, feed-forward or nothing, with E = 768 and 128. All rows
have ALBERT's sentence objective. The rows all-shared-128 and not-shared-128 have other numbers
in Table 3 (MNLI 81.6; MNLI 83.7, Avg 81.7): each table is given as printed.

Source: arXiv:1909.11942v6, Table 4.
Sweep:  python -m albert_jax.sweep configs/paper/table4.py --scale small
        python -m albert_jax.sweep configs/paper/table4.py
One:    python -m albert_jax.train --config configs/paper/table4.py:all-shared-128 \\
            --workdir runs/all-shared-128
        configs/paper/table4.py:all-shared-128,small is the same at the small scale.
Small:  E is 96 and 32 with H = 96, 4 layers, 4,000 steps (see albert_jax/config/paper.py).
"""

from ml_collections import ConfigDict

from albert_jax.config.paper import Scores, TableRow, row_config

BASE = "base.py:v1"
ROWS = {
    "all-shared-768": TableRow(
        BASE,
        {"model.share": "all", "model.embedding_size": 768},
        Scores((88.6, 81.5), (79.2, 76.6), 82.0, 90.6, 63.3, 79.8),
        31,
    ),
    "shared-attention-768": TableRow(
        BASE,
        {"model.share": "attention", "model.embedding_size": 768},
        Scores((89.9, 82.7), (80.0, 77.2), 84.0, 91.4, 67.7, 81.6),
        83,
    ),
    "shared-ffn-768": TableRow(
        BASE,
        {"model.share": "ffn", "model.embedding_size": 768},
        Scores((89.2, 82.1), (78.2, 75.4), 81.5, 90.8, 62.6, 79.5),
        57,
    ),
    "not-shared-768": TableRow(
        BASE,
        {"model.share": "none", "model.embedding_size": 768},
        Scores((90.4, 83.2), (80.4, 77.6), 84.5, 92.8, 68.2, 82.3),
        108,
    ),
    "all-shared-128": TableRow(
        BASE,
        {"model.share": "all", "model.embedding_size": 128},
        Scores((89.3, 82.3), (80.0, 77.1), 82.0, 90.3, 64.0, 80.1),
        12,
    ),
    "shared-attention-128": TableRow(
        BASE,
        {"model.share": "attention", "model.embedding_size": 128},
        Scores((89.9, 82.8), (80.7, 77.9), 83.4, 91.9, 67.6, 81.7),
        64,
    ),
    "shared-ffn-128": TableRow(
        BASE,
        {"model.share": "ffn", "model.embedding_size": 128},
        Scores((88.9, 81.6), (78.6, 75.6), 82.3, 91.7, 64.4, 80.2),
        38,
    ),
    "not-shared-128": TableRow(
        BASE,
        {"model.share": "none", "model.embedding_size": 128},
        Scores((89.9, 82.8), (80.3, 77.3), 83.2, 91.5, 67.9, 81.6),
        89,
    ),
}


def get_config(argument: str = "all-shared-128") -> ConfigDict:
    """Returns the settings of a row."""
    return row_config(__file__, ROWS, argument)
