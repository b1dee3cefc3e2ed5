"""A run's metrics: sums over steps and rates per second."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from albert_jax.tasks.base import Mean, MeanSums
from albert_jax.train.failures import BadSteps
from albert_jax.train.loggers import RunLog


class Meter:
    """Accumulates step metrics and logs their means.

    A step's metrics are read only after the next step has been dispatched, so the device always
    has work while the host waits. Rates exclude the first step after the start or a pause.
    """

    def __init__(
        self,
        log: RunLog,
        log_every: int,
        learning_rate: Callable[[int], Any],
        flops: Callable[[MeanSums], float],
        peak_flops: float | None,
        sums: MeanSums,
        bad_steps: BadSteps,
    ):
        """Continues from `sums`, a checkpoint's record of an unfinished logging interval.

        Args:
          log: receives the means.
          log_every: the logging interval, in steps.
          learning_rate: number of updates done so far -> learning rate.
          flops: metric sums over steps -> model FLOPs of those steps.
          peak_flops: FLOP/s of all devices together; None if unknown.
          sums: metrics since the last logged step.
          bad_steps: checks each step.
        """
        self._log, self._log_every, self._peak_flops = log, log_every, peak_flops
        self._learning_rate, self._flops = learning_rate, flops
        self.sums, self.bad_steps, self._timed = sums, bad_steps, MeanSums()
        self._seconds, self._since = 0.0, None
        self._pending: tuple[int, Mapping[str, Mean]] | None = None

    def push(self, step: int, metrics: Mapping[str, Mean]) -> None:
        """Stores the metrics of the step just dispatched, and reads those of the previous one."""
        self._read()
        self._pending = step, metrics

    def pause(self) -> None:
        """Reads outstanding metrics, and stops the clock until the next step is done."""
        self._read()
        self._since = None

    def _read(self) -> None:
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        metrics = jax.device_get(dict(metrics))
        now = time.perf_counter()
        metrics = self.bad_steps.judge(step, metrics)
        self.sums.add(metrics)
        if self._since is not None:
            self._seconds += now - self._since
            self._timed.add(metrics)
        self._since = now
        self._log.progress(step)
        if step % self._log_every == 0:
            self._log.write(step, "train", self._values(step))
            self.sums, self._timed, self._seconds = MeanSums(), MeanSums(), 0.0

    def _values(self, step: int) -> dict[str, Any]:
        updates = max(0, step - 1 - self.bad_steps.skipped)
        values = self.sums.means() | {
            "learning_rate": float(self._learning_rate(updates)),
            "skipped": int(self.sums.total("skipped")),
        }
        if spikes := int(self.sums.total("spikes")):
            values["spikes"] = spikes
        if not self._seconds:
            return values
        rate = self._flops(self._timed) / self._seconds
        return values | {
            "tokens_per_second": self._timed.total("tokens") / self._seconds,
            "model_flops_per_second": rate,
            "peak_flops_per_second": self._peak_flops,
            "mfu": rate / self._peak_flops if self._peak_flops else None,
        }
