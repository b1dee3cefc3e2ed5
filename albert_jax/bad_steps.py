"""Steps that went wrong: told with their documents, and the end of a run after many in a row."""

import collections
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from albert_jax.config import TrainConfig
from albert_jax.metrics import Ratio
from albert_jax.run_errors import RunError

_RECENT = 100  # good steps whose mean loss a step is compared with
_NAMED = 20  # documents of a batch that are listed


class BadSteps:
    """Judges each step by its numbers, which are the same in all processes.

    A step is bad where the loss or the gradient is not finite (`train_step` has then left the
    state as it was), or, with `train.max_loss_rise`, where the loss leaps.

    Attributes:
      in_row: bad steps since the last good one.
      skipped: updates left out since the run began.
    """

    def __init__(
        self,
        config: TrainConfig,
        say: Callable[[str], None],
        documents: Callable[[int], Sequence[int]] | None,
        before: Mapping[str, Any],
    ):
        """Goes on from `before`, the `as_dict()` of a checkpoint, or from {}.

        Args:
          config: how many bad steps are too many, and what a leap is.
          say: shows a line.
          documents: those in the batch of a step, where there are documents.
          before: what was carried over.
        """
        self._config, self._say, self._documents = config, say, documents
        self.in_row, self.skipped = 0, before.get("skipped", 0)
        self._recent = collections.deque(before.get("recent", ()), _RECENT)

    def judge(self, step: int, ratios: Mapping[str, Ratio]) -> dict[str, Ratio]:
        """What of a step's metrics is to be added up.

        Raises:
          RunError: where this bad step is one too many.
        """
        loss, norm = float(ratios["loss"].total), float(ratios["grad_norm"].total)
        if ratios["skipped"].total:
            self.skipped += 1
            self._tell(step, f"loss {loss:.4g}, gradient norm {norm:.4g}: update skipped")
            return {"skipped": ratios["skipped"]}
        rise = loss - statistics.fmean(self._recent) if self._recent else -math.inf
        if 0 < self._config.max_loss_rise < rise:
            self._tell(step, f"loss {loss:.4g}, {rise:.4g} above the mean of the steps before")
            return {**ratios, "spikes": Ratio(1.0, 0.0)}
        self.in_row = 0
        if self._config.max_loss_rise:
            self._recent.append(loss)
        return dict(ratios)

    def as_dict(self) -> dict[str, Any]:
        """What a checkpoint has to carry over; none is saved amid bad steps."""
        return {"skipped": self.skipped, "recent": list(self._recent)}

    def _tell(self, step: int, what: str) -> None:
        self.in_row += 1
        most = self._config.max_bad_steps
        self._say(
            f"step {step:>7}  {what}; bad step {self.in_row} of at most {most} in a row"
            f"{self._named(step)}"
        )
        if self.in_row >= most:
            raise RunError(
                f"step {step}: {what}; stopped after train.max_bad_steps={most} bad steps in a "
                "row, after the newest checkpoint. Go past them with a larger "
                "train.max_bad_steps, begin another run with init_from and a "
                "lower optimizer.learning_rate, or find the operation with train.debug_nans=True"
            )

    def _named(self, step: int) -> str:
        if self._documents is None:
            return ""
        numbers = self._documents(step)
        listed = ", ".join(map(str, numbers[:_NAMED]))
        more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
        return f"; documents {listed}{more}"
