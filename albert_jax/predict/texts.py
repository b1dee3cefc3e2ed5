"""Texts that are given to a model: what they must be, and a warning if they are cut."""

import warnings
from collections.abc import Sequence


def strings(name: str, given: Sequence[str]) -> list[str]:
    """Returns `given` as a list, after checking that it is a list of strings.

    Raises:
      ValueError: if it is not, or is empty.
    """
    if isinstance(given, str):
        raise ValueError(f"{name} must be a list of strings; put a single text in a list")
    found = list(given)
    wrong = [value for value in found if not isinstance(value, str)]
    if wrong or not found:
        raise ValueError(f"{name} must be strings, not {wrong[0]!r}" if wrong else f"no {name}")
    if not all(map(is_unicode, found)):
        raise ValueError(f"{name} hold half of a surrogate pair, which is no character; remove it")
    return found


def is_unicode(text: str) -> bool:
    """Returns whether a text can be encoded; half of a surrogate pair cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def warn_of_cut(cut: int, count: int, length: int) -> None:
    """Warns the caller of the calling method, if texts were cut to `length` tokens."""
    if cut:
        warnings.warn(f"{cut} of {count} texts were cut to {length} tokens", stacklevel=3)
