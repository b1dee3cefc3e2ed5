"""What is made once per test run, and read by all of its processes."""

import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Generator[Path]:
    """A folder that the first process to ask for it fills, while others wait; to be read only.

    As pytest-xdist's documentation has it ("making session-scoped fixtures execute only once").
    """
    top = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent  # the workers' folders lie in one
    folder, done = top / name, top / f"{name}.made"
    with FileLock(top / f"{name}.lock"):
        if not done.exists():
            folder.mkdir()
            make(folder)
            done.touch()
    before = _stamps(folder)
    yield folder
    assert _stamps(folder) == before, f"a test has changed {folder}, which others read"


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}
