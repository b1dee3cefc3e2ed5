"""Python values in files that are there whole or not at all, however often they are written."""

import os
import pickle
import uuid
from pathlib import Path
from typing import Any


def unfinished(path: Path) -> Path:
    """Returns a name beside `path` that nobody else has, to write to and then to rename."""
    return path.with_name(f"{path.name}.{os.getpid()}.{uuid.uuid4().hex}")


def save(path: Path, value: Any) -> None:
    """Writes a value; the last of several writers counts."""
    own = unfinished(path)
    own.write_bytes(pickle.dumps(value))
    own.replace(path)


def load(path: Path) -> Any:
    """Returns what `save` wrote; only for files of this run."""
    return pickle.loads(path.read_bytes())
