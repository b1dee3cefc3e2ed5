"""Words that must be one of a few, and what a message says when they are not."""

import dataclasses
import difflib
from collections.abc import Collection, Iterable
from typing import Any


def one_of(where: str, value: str, choices: Collection[str]) -> str:
    """Returns a setting's value.

    Raises:
      ValueError: if it is not one of the choices.
    """
    if value not in choices:
        close = difflib.get_close_matches(str(value), list(choices), n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{where} must be one of {', '.join(choices)}; got {value!r}{hint}")
    return value


def nearest(word: Any, known: Iterable[str]) -> str:
    """Returns the end of an error message: the closest of the known words, or all of them."""
    known = list(known)
    matches = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else f"; known: {', '.join(known)}"


def choice(default: str, *others: str) -> Any:
    """Returns the dataclass field of a setting that is one of these strings."""
    return dataclasses.field(default=default, metadata={"choices": (default, *others)})
