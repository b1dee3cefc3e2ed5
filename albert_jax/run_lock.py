"""One live run a directory: the system lets go of the lock however a process ends."""

import errno
import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

FILE = ".lock"
# Of file systems that cannot lock. There nothing keeps a second run out.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(directory: Path) -> Generator[None]:
    """Within it, `directory`, which exists, is this process's alone.

    The lock is on a file that stays: to remove it would let a third process lock another.

    Raises:
      ValueError: where it is another's; names that process.
    """
    with (directory / FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{str(directory)!r} is in use by {file.read().strip() or 'another process'}; "
                "wait for it, stop it, or choose another directory"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
