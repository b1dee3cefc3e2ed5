"""When a run saves: by steps, and by the clock."""

import time

from albert_jax.config import TrainConfig
from albert_jax.train.distributed import said_by_first


class SaveTimes:
    """Says after which steps to save; the same in all processes, which all ask after each step."""

    def __init__(self, config: TrainConfig):
        """Starts the clock."""
        self._config, self._since = config, time.monotonic()

    def at(self, step: int) -> bool:
        """Whether to save after `step`."""
        return step % self._config.checkpoint_every == 0 or self._is_late(step)

    def saved(self) -> None:
        """Starts the clock again."""
        self._since = time.monotonic()

    def _is_late(self, step: int) -> bool:
        # Clocks differ, so process 0 tells the others; not at each step, where they would wait.
        if not self._config.checkpoint_minutes or step % self._config.log_every:
            return False
        seconds = time.monotonic() - self._since
        return bool(said_by_first(int(seconds >= 60 * self._config.checkpoint_minutes)))
