"""About an hour on 2 CPU cores, on one's own text: 4.9 M parameters.

Data:   python -m albert_jax.prepare --input FILES --tokenizer 30k-clean.model \\
            --seq_len 256 --output data/small
Train:  python -m albert_jax.train --config configs/small.py --workdir runs/small
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config


def get_config() -> ConfigDict:
    """A third of base's width and half its depth; AdamW, which needs no large batch."""
    config = default_config()
    config.model.update(
        hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024
    )
    config.data.update(path="data/small", seq_len=256)
    config.optimizer.update(
        name="adamw", learning_rate=1e-3, warmup_steps=200, b2=0.98, bias_correction=True
    )
    config.train.update(
        batch_size=8,
        num_steps=3000,
        dtype="float32",
        remat="dots",  # on a CPU, writing activations costs more than computing them again
        log_every=20,
        eval_every=500,
        checkpoint_every=500,
    )
    return config
