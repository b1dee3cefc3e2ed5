"""File helpers: JSON, checksums and atomic writes."""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def parse_json(text: str, path: str, line: int | None = None) -> Any:
    """Returns the value of JSON text.

    Args:
      text: the JSON.
      path: the file, for messages.
      line: the number of the line that is the text; None if the text is the whole file.

    Raises:
      ValueError: if it is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line, reason = line or error.lineno, error.msg
    except ValueError as error:  # for example a number with thousands of digits
        reason = str(error)
    except RecursionError:
        reason = "nested too deeply"
    raise ValueError(f"{path}:{line or 1}: not JSON ({reason}); is the file truncated?")


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not JSON, or not an object.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not JSON (invalid UTF-8); restore it from a copy") from None
    values = parse_json(text, str(path))
    if not isinstance(values, dict):
        raise ValueError(
            f"{path}: must be a JSON object, not {type(values).__name__}; restore it from a copy"
        )
    return values


def file_sha256(path: str | os.PathLike) -> str:
    """Returns the hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unfinished(path: Path) -> Path:
    """Returns a unique name next to `path`, to write to and then rename."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yields a temporary path to write to, which finally replaces `path`.

    After an error, or a kill at any moment, the previous file is intact. If there are several
    writers, the last one wins.
    """
    temporary = unfinished(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(output: Path) -> Generator[Path]:
    """Yields a temporary folder to write to, which finally becomes `output`.

    After an error there is no output, complete or not.

    Raises:
      ValueError: if `output` exists and is not an empty folder.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output {str(output)!r} exists and is not empty; choose a new one")
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        folder = temporary / output.name
        folder.mkdir()
        yield folder
        folder.replace(output)
    finally:
        shutil.rmtree(temporary)


def replace_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def replace_json(path: Path, value: Any) -> None:
    """Writes human-readable JSON atomically."""
    replace_text(path, json.dumps(value, indent=2) + "\n")
