"""ALBERT large as published: 18 M parameters, 125 k steps of 4096 × 512 tokens.

Data:   python -m albert_jax.prepare --input tfds:wikipedia/20230601.en --input BOOKS \\
            --tokenizer 30k-clean.model --output data/wikibooks
Train:  python -m albert_jax.train --config configs/large.py --workdir runs/large
        configs/large.py:v1 is the first version, with dropout 0.1.
        A batch that does not fit the devices: --config.train.grad_accum_steps=N
        or --config.train.remat=dots; weights that do not: --config.mesh.fsdp=N.
Work:   2.0 GFLOP per token, 5.2e+20 in total.
Takes:  on 64 chips, estimated (benchmarks/results/accelerators):
        v5e     16 rows a device, grad_accum_steps=4: 1,021 to 1,150 device-hours
        v5p     32 rows a device, grad_accum_steps=2: 432 to 500 device-hours
        v6e     8 rows a device, grad_accum_steps=8: 329 to 413 device-hours
        h100    32 rows a device, grad_accum_steps=2: 296 device-hours
        a100-40 32 rows a device, grad_accum_steps=2: 915 device-hours
Scores: SQuAD 1.1 90.6 F1, SQuAD 2.0 82.3 F1, MNLI 83.5, SST-2 91.7, RACE 68.5
        (development sets, arXiv:1909.11942, Table 2).
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.config.presets import albert_preset


def get_config(version: str = "v2") -> ConfigDict:
    """Returns the published sizes; LAMB, batch and steps are the defaults."""
    config = default_config()
    config.model.update(albert_preset("large", version))
    config.data.update(path="data/wikibooks")
    # All of them: a loop copies what the gradient needs into stacks and back, a third of the time.
    config.train.unroll = config.model.num_hidden_layers
    return config
