"""Set-up shared by all tests: eight simulated CPU devices, rank promotion forbidden."""

import atexit
import os
import re
import signal
import tempfile
from collections.abc import Generator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

# Before jax is imported. The suite describes the CPU, also on a host that has an accelerator;
# an explicit JAX_PLATFORMS still wins.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite is compiling programs that run once, here in half the time. With `XLA_FLAGS=`
# before the command they are compiled as users do it; CI has that.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# A shell starts background jobs with Ctrl-C ignored, and so would the processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What one test compiled, others and the processes they start find here, pytest-xdist's workers
# too. A limit to its size, here one that is never reached, makes JAX lock it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="albert_jax_tests_")
    atexit.register(CACHE.cleanup)
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": CACHE.name,
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**40),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import is_hypothesis_test, settings  # noqa: E402
from support.examples import is_night  # noqa: E402
from support.paths import ROOT  # noqa: E402
from support.shared import made_once  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
# Shapes must agree without implicit leading axes: those hide mistakes.
jax.config.update("jax_numpy_rank_promotion", "raise")
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

# Each has a mark and runs of its own: TensorFlow crashes a process that also imports triton, which
# torch brings. The default environment has neither.
PEERS = ("torch", "tensorflow")
# How a test may say why it is skipped: by what this machine lacks, and not the environment.
LACKS = ("an NVIDIA GPU", "a TPU", "libtpu", "Linux", "SLURM", "root", "the data",
         "sentence-transformers")  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--peer",
        choices=("none", *PEERS),
        default="none",
        help="run the tests that need this package instead of those that need none",
    )


def is_left_out(file: Path, config: pytest.Config) -> bool:
    """Whether all tests in a file need another peer than this run has, and the file imports it."""
    if file.suffix != ".py":
        return False
    marks = " ".join(re.findall("^pytestmark = .*", file.read_text("utf-8"), re.MULTILINE))
    return any(f"mark.{peer}" in marks for peer in PEERS if peer != config.option.peer)


def pytest_configure(config: pytest.Config) -> None:
    """Hides the other peers; leaves out files that are named."""
    absent, find = {*PEERS} - {config.option.peer}, PathFinder.find_spec
    # tensorboardX imports torch wherever it is installed, and a test may lack its mark.
    finder: Any = PathFinder
    finder.find_spec = lambda name, *a: None if name in absent else find(name, *a)
    kept = [arg for arg in config.args if not is_left_out(Path(arg.partition("::")[0]), config)]
    if not kept:
        pytest.exit(f"no test for --peer {config.option.peer}", pytest.ExitCode.NO_TESTS_COLLECTED)
    config.args[:] = kept


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves files of other peers out; None leaves the rest to pytest."""
    return is_left_out(collection_path, config) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves the tests that need the peer of this run, and no other."""
    wanted = {config.option.peer} - {"none"}
    chosen = [i for i in items if {p for p in PEERS if i.get_closest_marker(p)} == wanted]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, pytest.TestReport]:
    """A skip that names nothing the machine lacks fails: nobody would notice it."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(tuple(f"needs {what}" for what in LACKS)):
            report.outcome = "failed"
            report.longrepr = f"skipped, and not because it 'needs' one of {LACKS}: {reason}"
    return report


def pytest_itemcollected(item: pytest.Item) -> None:
    """At night, property tests run with the nightly tests: they take more examples then."""
    if is_night() and is_hypothesis_test(getattr(item, "function", None)):
        item.add_marker(pytest.mark.nightly)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The repository's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real text beside the repository; a test that needs it skips without it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"needs the data: there is no folder {path}")
    return path


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """Random texts in `texts.jsonl`, their vocabulary `tokenizer.model` and their `rows`."""
    from support.tiny_runs import prepare_rows  # which loads the package

    yield from made_once(tmp_path_factory, "texts", prepare_rows)


@pytest.fixture(scope="session")
def rows(text_folder: Path) -> Path:
    """Packed rows of 64 slots; to be read only, as what else is made once."""
    return text_folder / "rows"


@pytest.fixture(scope="session")
def vocabulary(text_folder: Path) -> Path:
    """The SentencePiece model of `rows`; `write_vocabulary` writes the same."""
    return text_folder / "tokenizer.model"


@pytest.fixture(scope="session")
def trained_run(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """A run of `trained_settings(rows)`: 12 steps on all devices, checkpoints at 4, 8 and 12."""
    from support.tiny_runs import TRAINED, tiny_run

    yield from made_once(
        tmp_path_factory, "trained", lambda folder: tiny_run(rows, folder, **TRAINED)
    )
