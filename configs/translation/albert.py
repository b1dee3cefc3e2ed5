"""A pretrained ALBERT learns to translate: its encoder reads, and the same layer writes.

Data:   as for tiny.py, and an ALBERT of both languages with capitals and accents, such as one
        pretrained on the rows that `prepare` made there
Train:  python -m albert_jax.train --config configs/translation/albert.py --workdir runs/albert \\
            --config.task.data=data/multi30k --config.init_from=runs/pretrained
        New weights first, then all: --config.task.freeze_encoder=True
            --config.task.freeze_steps=500
        A decoder of its own: --config.model.decoder.share_encoder=False
Scores: benchmarks/results/translation, for 1.6 M parameters, which want a rate of 0.005. Pretrain
        with LAMB or AdamW: Muon leaves weights too large to be trained further at such rates
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config


def get_config() -> ConfigDict:
    """Returns 4,000 updates at a rate for pretrained weights.

    Sizes are those of the pretrained model. Sharing, and that cross-attention is new: arXiv:
    1907.12461, section 4 (BERTShare).
    """
    config = default_config()
    config.init_from = "runs/pretrained"
    config.model.update({"hidden_dropout_prob": 0.1})
    config.optimizer.update(
        {
            "name": "adamw",
            "learning_rate": 0.001,
            "warmup_steps": 500,
            "schedule": "inverse_sqrt",
            "weight_decay": 0.0,
            "b2": 0.98,
            "bias_correction": True,
        }
    )
    config.train.update(
        {
            "batch_size": 64,
            "batch_tokens": 4096,
            "num_steps": 4000,
            "dtype": "float32",
            "log_every": 50,
            "eval_every": 500,
            "checkpoint_every": 500,
            "keep_checkpoints": 5,
        }
    )
    config.task.update({"name": "translation/en-de", "data": "data/multi30k", "max_length": 128})
    return config
