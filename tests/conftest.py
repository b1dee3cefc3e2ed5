"""Set-up shared by all tests: eight simulated CPU devices, rank promotion forbidden."""

import os
from pathlib import Path

# Before jax is imported. The suite describes the CPU, also on a host that has an accelerator;
# an explicit JAX_PLATFORMS still wins.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# Shapes must agree without implicit leading axes: those hide mistakes.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's top folder."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real text beside the repository; a test that needs it skips without it."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"needs the data folder {path}")
    return path
