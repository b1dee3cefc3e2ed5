"""Models to and from other formats; `python -m albert_jax.convert`."""
