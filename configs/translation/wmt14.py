"""English to German on WMT 2014's 4.5 million pairs, begun from a pretrained model.

Data:   tfds:wmt14_translate/de-en, fetched and prepared by TFDS (4.5 M pairs, 1.6 GB)
Train:  python -m albert_jax.train --config configs/translation/wmt14.py --workdir runs/wmt14 \\
            --config.init_from=DIRECTORY
        with a pretrained ALBERT or BERT of both languages
Scores: not run here. arXiv:1907.12461, Table 5, newstest2014, uncased BLEU, BERT of base size:
        random 26.0, encoder from BERT 30.1, shared with the decoder 29.6; with a checkpoint and
        vocabulary of both languages 30.6 and 30.5
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config


def get_config() -> ConfigDict:
    """Returns the paper's settings but for the rate: batches of 256 pairs, 30 epochs, beam 4.

    Source: arXiv:1907.12461, sections 3 and 4.4. Its rate, "0.05 with square root decay", does
    not say what it is normalised by; the peak here is one that fine-tuning stands.
    """
    config = default_config()
    config.init_from = "runs/pretrained"
    config.model.update({"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1})
    config.optimizer.update(
        {
            "name": "adamw",
            "learning_rate": 1e-4,
            "warmup_steps": 40_000,
            "schedule": "inverse_sqrt",
            "weight_decay": 0.0,
            "bias_correction": True,
        }
    )
    config.train.update({"batch_size": 256, "num_steps": 528_000, "eval_every": 10_000})
    config.train.update({"checkpoint_every": 10_000, "keep_checkpoints": 10})
    config.task.update({"name": "translation/en-de", "data": "tfds:wmt14_translate/de-en"})
    config.task.max_length = 128
    config.task.translation.update({"beam": 4, "length_penalty": 0.6, "penalty": "gnmt"})
    return config
