"""All settings of a run: definitions, defaults, checks and config files."""

from albert_jax.config.schema import (
    Config,
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TaskConfig,
    TrainConfig,
    config_from_dict,
    default_config,
)

__all__ = [
    "Config",
    "DataConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TaskConfig",
    "TrainConfig",
    "config_from_dict",
    "default_config",
]
