"""A small Transformer from random weights: English to German on Multi30k's 29,000 captions.

Data:   train.en, train.de, val.en, val.de in data/multi30k, and a vocabulary of both languages:
        python -m albert_jax.prepare --input data/multi30k/train.en \\
            --input data/multi30k/train.de --validation data/multi30k/val.en \\
            --validation data/multi30k/val.de --seq_len 128 --vocab_size 10000 \\
            --no_lower_case --keep_accents --output data/ende
Train:  python -m albert_jax.train --config configs/translation/tiny.py --workdir runs/ende \\
            --config.task.data=data/multi30k --config.task.tokenizer=data/ende
Cost:   about a second an update on one core of an AMD EPYC, 2.2 hours
Scores: test 2016, beam 5, ten checkpoints averaged after 6,305 updates: BLEU 40.2 cased, 40.6
        lower-cased (benchmarks/results/translation)
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config


def get_config() -> ConfigDict:
    """Returns 4 + 4 layers that share nothing but the token table.

    Source of sizes, batch, rate and dropout: arXiv:2105.14462, section 4.1 (Transformer-Tiny).
    """
    config = default_config()
    config.init_from = "scratch"
    config.model.update(
        {
            "vocab_size": 10000,
            "embedding_size": 128,
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "hidden_act": "relu",
            "hidden_dropout_prob": 0.3,
            "max_position_embeddings": 128,
            "initializer_range": 0.05,
            "share": "none",
        }
    )
    config.model.decoder.share_encoder = False
    config.optimizer.update(
        {
            "name": "adamw",
            "learning_rate": 0.005,
            "warmup_steps": 2000,
            "schedule": "inverse_sqrt",
            "weight_decay": 0.0,
            "b2": 0.98,
            "eps": 1e-9,
            "bias_correction": True,
            "clip_norm": 0.0,
        }
    )
    config.train.update(
        {
            "batch_size": 64,
            "batch_tokens": 4096,
            "num_steps": 8000,
            "dtype": "float32",
            "log_every": 50,
            "eval_every": 200,
            "checkpoint_every": 200,
            "keep_checkpoints": 10,
        }
    )
    config.task.update({"name": "translation/en-de", "data": "data/multi30k", "max_length": 128})
    return config
