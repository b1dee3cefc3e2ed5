"""Pretraining ALBERT in JAX.

`albert_jax.load(path)` opens a trained model; the commands are `python -m
albert_jax.prepare` and `python -m albert_jax.train`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from albert_jax.predict.load import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # On first use: data preparation and reader processes must not import JAX.
    if name == "load":
        from albert_jax.predict.load import load

        return load
    raise AttributeError(f"module 'albert_jax' has no attribute {name!r}")
