"""What a user can mend is told in one line; everything else keeps its traceback."""

import errno
import sys

# What commands tell in one line. Other kinds are mistakes of ours.
USER_ERRORS = (ValueError, OSError)

_REMEDIES = {
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose a place that can be written to",
    errno.EEXIST: "choose another name, or remove what is there",
    errno.ENOTDIR: "choose another place: a file stands where a folder is needed",
    errno.EISDIR: "name a file: this is a folder",
    errno.ELOOP: "remove the links that lead to themselves",
    errno.ENOENT: "is the name right?",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "free some space, or choose another place",
}


def fail(error: Exception) -> int:
    """Prints an error of `USER_ERRORS` as `error: MESSAGE`; returns the command's exit code."""
    print(f"error: {one_line(error)}", file=sys.stderr)
    return 1


def one_line(error: Exception) -> str:
    """The message of an error in one line; the operating system's with its way out."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        reason = (error.strerror or message).lower()
        message = reason if error.filename is None else f"{error.filename}: {reason}"
        if error.errno in _REMEDIES:
            message += f"; {_REMEDIES[error.errno]}"
    return message


class RunError(RuntimeError):
    """A run cannot go on; the message says in a line what happened, and the way out."""
