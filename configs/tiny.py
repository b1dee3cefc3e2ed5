"""A few minutes on 2 CPU cores, to see everything work: 1.3 M parameters.

Data:   python -m albert_jax.prepare --input python-docs --vocab_size 8000 --seq_len 128 \\
            --output data/python-docs
Train:  python -m albert_jax.train --config configs/tiny.py --workdir runs/tiny
Both:   launch/local.sh
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config


def get_config() -> ConfigDict:
    """Returns a small ALBERT with AdamW, which does not need a large batch."""
    config = default_config()
    config.model.update(
        vocab_size=8000,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=128,
    )
    config.data.update(path="data/python-docs", seq_len=128)
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, warmup_steps=80, b2=0.98, bias_correction=True
    )
    config.train.update(
        batch_size=32,
        num_steps=800,
        dtype="float32",
        log_every=20,
        eval_every=200,
        checkpoint_every=200,
    )
    return config
