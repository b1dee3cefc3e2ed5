"""The times at which a run saves: by step count and by the clock."""

import time

from albert_jax.config import TrainConfig
from albert_jax.train.distributed import said_by_first


class SaveTimes:
    """Decides after which steps to save; every process must ask after every step."""

    def __init__(self, config: TrainConfig):
        """Starts the clock."""
        self._config, self._since = config, time.monotonic()

    def at(self, step: int) -> bool:
        """Returns whether to save after `step`; the answer is the same in all processes."""
        return step % self._config.checkpoint_every == 0 or self._is_late(step)

    def saved(self) -> None:
        """Restarts the clock."""
        self._since = time.monotonic()

    def _is_late(self, step: int) -> bool:
        # Clocks differ between processes, so process 0 decides for all. That exchange makes them
        # wait for each other, so it happens only every `log_every` steps.
        if not self._config.checkpoint_minutes or step % self._config.log_every:
            return False
        seconds = time.monotonic() - self._since
        return bool(said_by_first(int(seconds >= 60 * self._config.checkpoint_minutes)))
