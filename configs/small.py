"""About 40 minutes on one CPU core, on your own text: 1.3 M parameters.

Data:   python -m albert_jax.prepare --input FILES --vocab_size 8000 --seq_len 32 128 \\
            --output data/small
Train:  python -m albert_jax.train --config configs/small.py --workdir runs/small
Then, so that [CLS] learns to compare, five minutes of next sentence prediction:
        python -m albert_jax.train --config configs/small.py:nsp --workdir runs/small-nsp \\
            --config.init_from=runs/small
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config


def get_config(objective: str = "sop") -> ConfigDict:
    """Returns a recipe like tiny's for eight times the steps; or `nsp`, which goes on from it.

    LAMB at 0.005 ends at 4.43 held-out nats with 40% of the tokens masked. At 0.01 it is ahead for
    the first 1,000 steps and ends at 4.64, with embeddings of 20 times the initial size. Muon at
    0.005 ends at 4.50, with weights of six times that size, which fine-tuning hardly changes;
    those of LAMB's layers are of twice the size.

    Sentence order is hardly learned on rows of 128 tokens: a bag of words has 53% there
    (benchmarks/bag_of_words.py). Whether sentences belong together is.

    Raises:
      ValueError: if the objective is neither.
    """
    config = default_config()
    config.model.update(
        vocab_size=8000,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        initializer_range=0.05,  # 0.02 at a width of 768, scaled by its square root
    )
    config.data.update(path="data/small", seq_len=128, mask_rate=0.4, max_ngram=1)
    config.optimizer.b2 = 0.98
    config.train.update(
        batch_size=16, dtype="float32", log_every=50, eval_every=1000, checkpoint_every=1000
    )
    if objective == "sop":
        config.data.update(phases=("32:0.5",), sentence_weight=0.1)
        config.optimizer.update(name="lamb", learning_rate=0.005, warmup_steps=100)
        config.train.num_steps = 16_000
    elif objective == "nsp":
        config.data.sentence_objective = "nsp"
        config.optimizer.update(
            name="adamw", learning_rate=1e-3, warmup_steps=300, bias_correction=True
        )
        config.train.num_steps = 2000
    else:
        raise ValueError(f"configs/small.py: no objective {objective!r}; use sop or nsp")
    return config
