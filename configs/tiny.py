"""Five minutes on 2 CPU cores, to see everything work: 1.3 M parameters.

Data:   python -m albert_jax.prepare --input python-docs --vocab_size 8000 --seq_len 32 128 \\
            --validation_fraction 0.02 --output data/python-docs
Train:  python -m albert_jax.train --config configs/tiny.py --workdir runs/tiny
Both:   launch/local.sh
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config


def get_config() -> ConfigDict:
    """Returns what learns most in so short a time (benchmarks/README.md has the search).

    What it takes to use contexts soon, in the order of what it gained: Muon; the sentence loss at
    a small weight, since the gradient of so few pairs is mostly noise; few layers; short rows
    first; four heads; two fifths of the tokens masked, one word at a time. Held out, 15 % are.
    """
    config = default_config()
    config.model.update(
        vocab_size=8000,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
        initializer_range=0.05,  # 0.02 at a width of 768, scaled by its square root
    )
    config.data.update(
        path="data/python-docs",
        seq_len=128,
        phases=("32:0.5",),
        mask_rate=0.4,
        eval_mask_rate=0.15,
        max_ngram=1,
        sentence_weight=0.3,
    )
    config.optimizer.update(name="muon", learning_rate=0.01, warmup_steps=40, b2=0.98)
    config.train.update(
        batch_size=16,
        num_steps=2000,
        dtype="float32",
        log_every=20,
        eval_every=500,
        checkpoint_every=500,
    )
    return config
