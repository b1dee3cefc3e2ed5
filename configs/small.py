"""About an hour on one CPU core, on your own text: 1.3 M parameters.

Data:   python -m albert_jax.prepare --input FILES --vocab_size 8000 --seq_len 128 \\
            --output data/small
Train:  python -m albert_jax.train --config configs/small.py --workdir runs/small
Then, so that [CLS] learns to compare, a quarter of an hour of next sentence prediction:
        python -m albert_jax.train --config configs/small.py --workdir runs/small-nsp \\
            --config.init_from=runs/small --config.data.sentence_objective=nsp \\
            --config.train.num_steps=2000 --config.optimizer.learning_rate=1e-3
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config


def get_config() -> ConfigDict:
    """Returns a sixth of base's width, a third of its depth, and a small vocabulary.

    With so little text, the rarer tokens of a large vocabulary occur too seldom, and its softmax
    costs more than all layers: after the same 800 steps, the loss with 8,000 tokens was 0.51 nats
    below the unigram entropy, and with 30,000, at 1.4 times the cost, 0.40. With so few steps,
    many predictions per step help, each with its neighbours visible: 1,500 steps with two fifths
    of the tokens masked, one word at a time, taught as much as 6,000 with 15 % in n-grams (5.88
    and 5.83 nats, both measured on such n-grams).

    Sentence order is not learned: the accuracy is 53 %, that of a bag of words on the same pairs
    (benchmarks/bag_of_words.py). Whether sentences belong together is learned: 78 % after 500
    steps, 83 % after 2,000. Starting with that objective, however, delays learning contexts.
    """
    config = default_config()
    config.model.update(
        vocab_size=8000,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=512,
        initializer_range=0.05,  # 0.02 at a width of 768, scaled by its square root
    )
    config.data.update(path="data/small", seq_len=128, mask_rate=0.4, max_ngram=1)
    config.optimizer.update(
        name="adamw", learning_rate=2e-3, warmup_steps=300, b2=0.98, bias_correction=True
    )
    config.train.update(
        batch_size=16,
        num_steps=8000,
        dtype="float32",
        log_every=50,
        eval_every=1000,
        checkpoint_every=1000,
    )
    return config
