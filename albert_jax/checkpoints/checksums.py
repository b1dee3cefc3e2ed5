"""Checksums of a folder's files, stored in it and readable by `sha256sum --check FILE`."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from albert_jax.data.files import file_sha256

FILE = "checksums.sha256"
_LAST = "# sha256 of the lines above: "  # detects a truncated checksum file


def seal(folder: Path, without: Iterable[str] = ()) -> None:
    """Writes the checksums of all files in `folder` except those named in `without`."""
    skipped = {FILE, *without}
    names = sorted(
        name
        for path in folder.rglob("*")
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in skipped
    )
    text = "".join(f"{file_sha256(folder / name)}  {name}\n" for name in names)
    (folder / FILE).write_text(f"{text}{_LAST}{_sha256(text)}\n", "utf-8")


def is_sealed(folder: Path) -> bool:
    """Returns whether there are checksums to compare with."""
    return (folder / FILE).is_file()


def damage_of(folder: Path, part: str = "") -> str | None:
    """Returns the first damage found in a sealed folder; None if all its files are intact.

    Args:
      folder: the folder; if it was never sealed, no damage is found.
      part: checks only files whose path starts with this.
    """
    if not is_sealed(folder):
        return None
    text = (folder / FILE).read_bytes().decode("utf-8", "replace")
    lines, mark, own = text.rpartition(_LAST)
    if not mark or own != f"{_sha256(lines)}\n":
        return f"{FILE} is damaged"
    for line in lines.splitlines():
        expected, _, name = line.partition("  ")
        if not name.startswith(part):
            continue
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if file_sha256(path) != expected:
            return f"{name} does not hold the bytes that were written"
    return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
