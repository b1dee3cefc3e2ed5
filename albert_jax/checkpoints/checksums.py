"""Checksums of the files of a folder, kept in it: `sha256sum --check FILE` reads them too."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from albert_jax.data.files import file_sha256

FILE = "checksums.sha256"
_LAST = "# sha256 of the lines above: "  # so that a file cut short is noticed


def seal(folder: Path, without: Iterable[str] = ()) -> None:
    """Writes the checksums of all files in `folder`, but those named in `without`."""
    skipped = {FILE, *without}
    names = sorted(
        name
        for path in folder.rglob("*")
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in skipped
    )
    text = "".join(f"{file_sha256(folder / name)}  {name}\n" for name in names)
    (folder / FILE).write_text(f"{text}{_LAST}{_sha256(text)}\n", "utf-8")


def is_sealed(folder: Path) -> bool:
    """Whether there are checksums to compare with."""
    return (folder / FILE).is_file()


def damage_of(folder: Path, part: str = "") -> str | None:
    """What is wrong with the files of a sealed folder, the first found; None if they are whole.

    Args:
      folder: the folder; where it was never sealed nothing is found wrong.
      part: look only at files whose path begins with it.
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
            return f"{name} holds other bytes than were written"
    return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
