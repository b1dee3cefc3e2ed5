"""What ends a run in one line: the run's own errors, and those of a disk that is full."""

import errno
import logging
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FULL = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded"}


class RunError(RuntimeError):
    """A run cannot go on; the message says in a line what happened, and the way out."""


@contextmanager
def told_in_a_line(workdir: Path, *kinds: type[Exception]) -> Generator[None]:
    """Turns errors of a full disk, whoever met them, and of some `kinds` into a `RunError`."""
    try:
        yield
    except kinds as error:
        raise RunError(str(error)) from error
    except Exception as error:
        full = next((one for one in _chain(error) if _is_full(one)), None)
        if full is None:
            raise
        what = getattr(full, "filename", None) or "what the run writes"
        steps = [int(p.name) for p in workdir.glob("checkpoints/[0-9]*") if p.name.isdecimal()]
        kept = f"the checkpoint of step {max(steps)} is whole" if steps else "no checkpoint yet"
        raise RunError(
            f"{str(workdir)!r}: the disk is full, {what} could not be written; {kept}. Make "
            "space: the same command goes on from there"
        ) from error


def hide_late_writes() -> None:
    """From now on, writes that fail after the first one do not speak beside its error.

    tensorstore hands what its threads meet to an event loop, which that error has closed, and
    Python would print a traceback for each; asyncio would for each of Orbax's other tasks.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = hook


def _is_full(error: BaseException) -> bool:
    # tensorstore, under Orbax, gives the system's words in errors of other types.
    known = isinstance(error, OSError) and error.errno in _FULL
    return known or any(words in str(error) for words in _FULL.values())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
