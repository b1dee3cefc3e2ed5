"""ALBERT xlarge as published: 60 M parameters, 125 k steps of 4096 × 512 tokens.

Data:   python -m albert_jax.prepare --input tfds:wikipedia/20230601.en --input BOOKS \\
            --tokenizer 30k-clean.model --output data/wikibooks
Train:  python -m albert_jax.train --config configs/xlarge.py --workdir runs/xlarge
        configs/xlarge.py:v1 is the first version, with dropout 0.1.
        A batch that does not fit the devices: --config.train.grad_accum_steps=N
        or --config.train.remat=dots; weights that do not: --config.mesh.fsdp=N.
Work:   7.6 GFLOP per token, 2.0e+21 in total.
Takes:  on 64 chips, estimated (benchmarks/results/accelerators):
        v5e     8 rows a device, grad_accum_steps=8: 3,402 to 3,517 device-hours
        v5p     16 rows a device, grad_accum_steps=4: 1,430 to 1,615 device-hours
        v6e     4 rows a device, grad_accum_steps=16: 915 to 1,166 device-hours
        h100    16 rows a device, grad_accum_steps=4: 866 device-hours
        a100-40 16 rows a device, grad_accum_steps=4: 2,687 device-hours
Scores: SQuAD 1.1 92.5 F1, SQuAD 2.0 86.1 F1, MNLI 86.4, SST-2 92.4, RACE 74.8
        (development sets, arXiv:1909.11942, Table 2).
"""

from ml_collections import ConfigDict

from albert_jax.config import default_config
from albert_jax.config.presets import albert_preset


def get_config(version: str = "v2") -> ConfigDict:
    """Returns the published sizes; LAMB, batch and steps are the defaults."""
    config = default_config()
    config.model.update(albert_preset("xlarge", version))
    config.data.update(path="data/wikibooks")
    # All of them: a loop copies what the gradient needs into stacks and back, a third of the time.
    config.train.unroll = config.model.num_hidden_layers
    return config
