"""ALBERT base as published: 12 M parameters, 125 k steps of 4096 × 512 tokens.

Data:   python -m albert_jax.prepare --input tfds:wikipedia/20230601.en --input BOOKS \\
            --tokenizer 30k-clean.model --output data/wikibooks
Train:  python -m albert_jax.train --config configs/base.py --workdir runs/base
        configs/base.py:v1 is the first version, with dropout 0.1.
        A batch that does not fit the devices: --config.train.grad_accum_steps=N
        or --config.train.remat=dots; weights that do not: --config.mesh.fsdp=N.
Work:   570 MFLOP per token, 1.5e+20 in total.
Takes:  on 64 chips, estimated (benchmarks/results/accelerators):
        v5e     32 rows a device, grad_accum_steps=2: 318 to 396 device-hours
        v5p     32 rows a device, grad_accum_steps=2: 135 to 171 device-hours
        v6e     8 rows a device, grad_accum_steps=8: 111 to 151 device-hours
        h100    32 rows a device, grad_accum_steps=2: 104 device-hours
        a100-40 32 rows a device, grad_accum_steps=2: 311 device-hours
Scores: SQuAD 1.1 89.3 F1, SQuAD 2.0 80.0 F1, MNLI 81.6, SST-2 90.3, RACE 64.0
        (development sets, arXiv:1909.11942, Table 2).
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.config.presets import albert_preset


def get_config(version: str = "v2") -> ConfigDict:
    """Returns the published sizes; LAMB, batch and steps are the defaults."""
    config = default_config()
    config.model.update(albert_preset("base", version))
    config.data.update(path="data/wikibooks")
    # All of them: a loop copies what the gradient needs into stacks and back, a third of the time.
    config.train.unroll = config.model.num_hidden_layers
    return config
