"""JSON text, and files that hold an object, as settings and records do."""

import json
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
