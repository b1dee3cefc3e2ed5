"""What the readers of task files share: finding the splits, lines, JSON, numbers."""

import math
import os
import re
from collections.abc import Callable
from typing import Any

from albert_jax.data.text_files import name_without_compression, utf8_chunks
from albert_jax.data.tfds import WORDS, in_order

TO_UTF_8 = "convert the file, for example with iconv -f WINDOWS-1252 -t UTF-8"


def split_of_lone(path: str) -> str:
    """Returns what to call the examples of a single file that is predicted: by its name."""
    stem = os.path.basename(name_without_compression(path)).partition(".")[0]
    return WORDS.get(stem.lower(), stem) or "test"


def split_in_name(name: str) -> str | None:
    """Returns the split that a file's name starts with ("dev_1.tsv": validation), or None."""
    word = re.match(r"[a-z]*", name.lower())
    return WORDS.get(word[0]) if word else None


def find_splits(
    source: str, name_to_split: Callable[[str], str | None], looked_for: str, lone: str | None
) -> dict[str, str]:
    """Finds the file of each split.

    Args:
      source: a folder, or one file.
      name_to_split: file name -> its split; None for unrelated files.
      looked_for: the accepted names, for messages.
      lone: the split of a source that is one file whose name does not show its split; None
        requires that the name does.

    Returns:
      Split -> path, in order.

    Raises:
      FileNotFoundError: if the source does not exist or holds no such file.
      ValueError: if two files map to one split, or a file's name does not show its split.
    """
    if os.path.isfile(source):
        split = name_to_split(os.path.basename(source)) or lone
        if split is None:
            raise ValueError(
                f"{source}: the name does not show which split this is; rename it ({looked_for})"
            )
        return {split: source}
    if not os.path.isdir(source):
        raise FileNotFoundError(f"{source}: no such file or folder; looked for {looked_for} in it")
    found: dict[str, str] = {}
    for name in sorted(os.listdir(source)):
        path = os.path.join(source, name)
        split = name_to_split(name) if os.path.isfile(path) else None
        if split is None:
            continue
        if split in found:
            raise ValueError(
                f"{source}: both {os.path.basename(found[split])} and {name} would be {split}; "
                "keep one"
            )
        found[split] = path
    if not found:
        raise FileNotFoundError(f"{source}: holds none of {looked_for}")
    return {split: found[split] for split in in_order(found)}


def read_text(path: str) -> str:
    """Returns the text of a UTF-8 or UTF-16 file, compressed or not, without a byte-order mark.

    Raises:
      ValueError: if a line is not UTF-8, or there is nothing but white space.
    """
    with open(path, "rb") as f:
        data = b"".join(utf8_chunks(f, path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # If there is a byte-order mark, `start` counts from after it.
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}:{line}: invalid UTF-8; {TO_UTF_8}") from None
    if not text.strip():
        raise ValueError(f"{path}: the file is empty; fetch it again")
    return text


def read_lines(path: str) -> list[str]:
    """Returns a file's lines without their ends and without empty lines at the end.

    Only LF and CR LF end a line: texts contain other characters that Python treats as line ends.

    Raises:
      ValueError: if a line is not UTF-8, or there is nothing but white space.
    """
    lines = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    while not lines[-1].strip():
        lines.pop()
    return lines


def finite(value: Any, where: str) -> float:
    """Returns a score as a number.

    Raises:
      ValueError: if it is not a number, or not finite.
    """
    # float() would also accept True and "1_000".
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value) if "_" not in str(value) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise ValueError(
        f"{where}: score {value!r} is not a finite number; correct it or drop the row"
    )
