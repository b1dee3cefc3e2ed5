"""About an hour on one CPU core, on one's own text: 4.2 M parameters.

Data:   python -m albert_jax.prepare --input FILES --tokenizer 30k-clean.model \\
            --seq_len 128 --output data/small
Train:  python -m albert_jax.train --config configs/small.py --workdir runs/small
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config


def get_config() -> ConfigDict:
    """A sixth of base's width and a third of its depth, with ALBERT's own vocabulary."""
    config = default_config()
    config.model.update(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=2, intermediate_size=512
    )
    config.data.update(path="data/small", seq_len=128)
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, warmup_steps=300, b2=0.98, bias_correction=True
    )
    config.train.update(
        batch_size=16,
        num_steps=4000,
        dtype="float32",
        remat="dots",  # on a CPU, writing activations costs more than computing them again
        log_every=50,
        eval_every=800,
        checkpoint_every=800,
    )
    return config
