"""Being asked to stop: a preemption notice, or Ctrl-C. The run then saves, and goes on later."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: "try again"; the scripts in launch/ do


class StoppedError(Exception):
    """A run has saved, and ended before its last step, as it was asked to."""


class StopRequests:
    """Within it, SIGTERM and the first Ctrl-C are noted; a second Ctrl-C interrupts.

    In a run of many processes one that is asked is enough: jax's preemption service, which
    takes SIGTERM there, lets all agree on a step.
    """

    def __init__(self) -> None:
        """Changes nothing yet."""
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Takes the signals over, which only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            signals: dict[signal.Signals, Any] = {signal.SIGINT: self._interrupted}
            if not jax.distributed.is_initialized():
                signals[signal.SIGTERM] = self._terminated
            for number, handler in signals.items():
                self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def at(self, step: int) -> bool:
        """Whether to stop after `step`: the same in all processes, which all ask each step."""
        return self._asked or multihost_utils.reached_preemption_sync_point(step)

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _interrupted(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler)
        print("\nstops after a checkpoint; once more: at once", flush=True)
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)  # jax's service tells the others
        else:
            self._asked = True
