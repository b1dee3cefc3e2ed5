"""Error reporting: errors that a user can fix take one line; all others keep their traceback."""

import errno
import sys

# Errors that commands print as one line. Other types are bugs in this package.
USER_ERRORS = (ValueError, OSError)

_REMEDIES = {
    errno.EACCES: "choose another place, or change its permissions",
    errno.EPERM: "choose another place, or change its permissions",
    errno.EROFS: "choose a writable place",
    errno.EEXIST: "choose another name, or remove what is there",
    errno.ENOTDIR: "choose another place: there is a file where a folder is needed",
    errno.EISDIR: "give the name of a file: this is a folder",
    errno.ELOOP: "remove the links that point to themselves",
    errno.ENOENT: "is the name correct?",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "free some space, or choose another place",
}


def fail(error: Exception) -> int:
    """Prints an error of `USER_ERRORS` as `error: MESSAGE`; returns the command's exit code."""
    print(f"error: {one_line(error)}", file=sys.stderr)
    return 1


def one_line(error: Exception) -> str:
    """Returns an error's message as one line; for operating system errors, with a remedy."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.errno is not None:
        reason = (error.strerror or message).lower()
        message = reason if error.filename is None else f"{error.filename}: {reason}"
        if error.errno in _REMEDIES:
            message += f"; {_REMEDIES[error.errno]}"
    return message


class RunError(RuntimeError):
    """A run cannot continue; the message states in one line what happened and the remedy."""
