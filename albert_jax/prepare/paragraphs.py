"""Lines of text to paragraphs."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from albert_jax.data.scripts import UNSPACED

# Lines with their numbers from 1, without their ends.
Lines = Iterator[tuple[int, str]]
# The items a reader yields: paragraphs, and None where a document ends.
Items = Iterator[str | None]

# The lines of a block are joined, as hard-wrapped text, if none is longer than this.
# Editors and mail wrap at 70 to 100 columns; a paragraph on one line is nearly always longer.
WRAP_COLUMNS = 100
# The end of a line between two characters of a script without spaces.
_BETWEEN_UNSPACED = re.compile(f"(?<=[{UNSPACED}])\n(?=[{UNSPACED}])")


def paragraphs_of(lines: Iterable[str]) -> Iterator[str]:
    """Yields paragraphs, separated by blank lines, or by any line end if not hard-wrapped."""
    block = []
    for line in chain(lines, [""]):
        if line.strip():
            block.append(line)
        elif block:
            yield from _join(block)
            block = []


def _join(block: list[str]) -> list[str]:
    """Returns the paragraphs of a block of lines between blank ones."""
    if max(map(len, block)) <= WRAP_COLUMNS:
        wrapped = "\n".join(line.strip() for line in block)
        return [_BETWEEN_UNSPACED.sub("", wrapped).replace("\n", " ")]
    return [line.strip() for line in block]
