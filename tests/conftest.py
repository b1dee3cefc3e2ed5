"""Set-up shared by all tests: eight simulated CPU devices, rank promotion forbidden."""

import os
import signal
import tempfile
from pathlib import Path

# Before jax is imported. The suite describes the CPU, also on a host that has an accelerator;
# an explicit JAX_PLATFORMS still wins.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite is compiling programs that run once, here in half the time. With `XLA_FLAGS=`
# before the command they are compiled as users do it; CI has that.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# A shell starts background jobs with Ctrl-C ignored, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What one test compiled, others and the processes they start find here.
CACHE = tempfile.TemporaryDirectory(prefix="albert_jax_tests_")
os.environ |= {
    "JAX_COMPILATION_CACHE_DIR": CACHE.name,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}

import jax  # noqa: E402
import pytest  # noqa: E402

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
