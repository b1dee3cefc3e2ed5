"""Graceful shutdown on SIGTERM (such as a preemption notice) or Ctrl-C.

The run saves a checkpoint before it ends, and resumes from it when started again.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL in sysexits.h: "try again", which the scripts in launch/ do


class StoppedError(Exception):
    """A run that saved and ended before its last step, as requested."""


class StopRequests:
    """Context that records SIGTERM and the first Ctrl-C; a second Ctrl-C interrupts at once.

    In a multi-process run it is enough to signal one process: JAX's preemption service, which
    handles SIGTERM there, makes all processes agree on the step to stop after.
    """

    def __init__(self) -> None:
        """Installs no handlers yet; entering the context does."""
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Installs the signal handlers, which only the main thread may do."""
        if threading.current_thread() is threading.main_thread():
            signals: dict[signal.Signals, Any] = {signal.SIGINT: self._interrupted}
            if not jax.distributed.is_initialized():
                signals[signal.SIGTERM] = self._terminated
            for number, handler in signals.items():
                self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        """Restores the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def at(self, step: int) -> bool:
        """Returns whether to stop after `step`.

        Every process must ask after every step; all get the same answer.
        """
        return self._asked or multihost_utils.reached_preemption_sync_point(step)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler)
        print("\nstopping after a checkpoint; press Ctrl-C again to stop at once", flush=True)
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)  # JAX's service notifies the other processes
        else:
            self._asked = True
