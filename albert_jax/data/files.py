"""Files as the package reads and writes them: JSON, checksums, written whole or not at all."""

import hashlib
import json
import os
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def parse_json(text: str, path: str, line: int | None = None) -> Any:
    """Returns what JSON text says.

    Args:
      text: the JSON.
      path: the file, for messages.
      line: the line the text is; None: it is the whole file.

    Raises:
      ValueError: it is not JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line, reason = line or error.lineno, error.msg
    except ValueError as error:  # a number of thousands of digits
        reason = str(error)
    except RecursionError:
        reason = "nested too deeply"
    raise ValueError(f"{path}:{line or 1}: not JSON ({reason}); is the file cut off?")


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds no JSON, or no object.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not JSON (invalid UTF-8); take a sound copy") from None
    values = parse_json(text, str(path))
    if not isinstance(values, dict):
        raise ValueError(
            f"{path}: a JSON object is needed, not {type(values).__name__}; take a sound copy"
        )
    return values


def file_sha256(path: str | os.PathLike) -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unfinished(path: Path) -> Path:
    """A name beside `path` that nobody else has, to write to and then to rename."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Gives a path to write to; at the end, what was written takes the place of `path`.

    After an error, or a kill at any moment, what stood there before still does. Of several
    writers the last counts.
    """
    temporary = unfinished(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, "utf-8")


def replace_json(path: Path, value: Any) -> None:
    """Writes JSON for people to read, whole or not at all."""
    replace_text(path, json.dumps(value, indent=2) + "\n")
