"""ALBERT xxlarge as published: 223 M parameters, 125 k steps of 4096 × 512 tokens.

Data:   python -m albert_jax.prepare --input tfds:wikipedia/20230601.en --input BOOKS \\
            --tokenizer 30k-clean.model --output data/wikibooks
Train:  python -m albert_jax.train --config configs/xxlarge.py --workdir runs/xxlarge
        configs/xxlarge.py:v1 is the same: xxlarge never had dropout.
        A batch that does not fit the devices: --config.train.grad_accum_steps=N
        or --config.train.remat=dots; weights that do not: --config.mesh.fsdp=N.
Work:   14.8 GFLOP per token, 3.9e+21 in total.
Takes:  on 64 chips, estimated (benchmarks/results/accelerators):
        v5e     8 rows a device, grad_accum_steps=8: 6,579 to 6,954 device-hours
        v5p     16 rows a device, grad_accum_steps=4: 2,801 to 3,271 device-hours
        v6e     8 rows a device, grad_accum_steps=8: 1,677 to 2,011 device-hours
        h100    16 rows a device, grad_accum_steps=4: 1,568 device-hours
        a100-40 16 rows a device, grad_accum_steps=4: 4,822 device-hours
Scores: SQuAD 1.1 94.1 F1, SQuAD 2.0 88.1 F1, MNLI 88.0, SST-2 95.2, RACE 82.3
        (development sets, arXiv:1909.11942, Table 2).
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.config.presets import albert_preset


def get_config(version: str = "v2") -> ConfigDict:
    """Returns the published sizes; LAMB, batch and steps are the defaults."""
    config = default_config()
    config.model.update(albert_preset("xxlarge", version))
    config.data.update(path="data/wikibooks")
    # All of them: a loop copies what the gradient needs into stacks and back, a third of the time.
    config.train.unroll = config.model.num_hidden_layers
    return config
