"""Failures during a run: bad steps, the operation that produced a NaN, a full disk."""

import collections
import errno
import logging
import math
import statistics
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from albert_jax.config import TrainConfig
from albert_jax.config.errors import RunError
from albert_jax.tasks.base import Mean

_RECENT = 100  # number of recent good steps whose mean loss a step is compared with
_NAMED = 20  # at most so many documents of a batch are listed


class BadSteps:
    """Detects bad steps from their metrics, which are the same in all processes.

    A step is bad if the loss or the gradient is not finite (`train_step` then leaves parameters
    and optimizer state unchanged), or, with `train.max_loss_rise`, if the loss jumps.

    Attributes:
      in_row: bad steps since the last good one.
      skipped: updates skipped since the run began.
    """

    def __init__(
        self,
        config: TrainConfig,
        say: Callable[[str], None],
        documents: Callable[[int], Sequence[int]] | None,
        before: Mapping[str, Any],
    ):
        """Continues from `before`, the `as_dict()` stored in a checkpoint, or from {}.

        Args:
          config: sets how many bad steps are too many, and what counts as a jump.
          say: logs a line.
          documents: step -> numbers of the documents in its batch, if there are documents.
          before: the stored record.
        """
        self._config, self._say, self._documents = config, say, documents
        self.in_row, self.skipped = 0, before.get("skipped", 0)
        self._recent = collections.deque(before.get("recent", ()), _RECENT)

    def judge(self, step: int, metrics: Mapping[str, Mean]) -> dict[str, Mean]:
        """Returns those of a step's metrics that count towards the logged means.

        Raises:
          RunError: if this is one bad step too many.
        """
        loss, norm = float(metrics["loss"].total), float(metrics["grad_norm"].total)
        if metrics["skipped"].total:
            self.skipped += 1
            self._tell(step, f"loss {loss:.4g}, gradient norm {norm:.4g}: update skipped")
            return {"skipped": metrics["skipped"]}
        rise = loss - statistics.fmean(self._recent) if self._recent else -math.inf
        if 0 < self._config.max_loss_rise < rise:
            self._tell(step, f"loss {loss:.4g}, {rise:.4g} above the mean of recent steps")
            return {**metrics, "spikes": Mean(1.0, 0.0)}
        self.in_row = 0
        if self._config.max_loss_rise:
            self._recent.append(loss)
        return dict(metrics)

    def as_dict(self) -> dict[str, Any]:
        """Returns the record for a checkpoint; none is saved in the middle of bad steps."""
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
                "row, all after the newest checkpoint. Raise train.max_bad_steps to get past "
                "them, start a new run with init_from and a lower optimizer.learning_rate, or "
                "find the operation with train.debug_nans=True"
            )

    def _named(self, step: int) -> str:
        if self._documents is None:
            return ""
        numbers = self._documents(step)
        listed = ", ".join(map(str, numbers[:_NAMED]))
        more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
        return f"; documents {listed}{more}"


_PACKAGE = Path(__file__).parents[1]
# The checked step runs only once, so little optimization halves its total time.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def first_nan(step: Callable[..., Any], state: Any, batch: Any, key: jax.Array) -> str:
    """Recomputes a step with every operation checked, to find where the first NaN arose.

    Args:
      step: (state, batch, key) -> anything; its arguments may be donated.
      state: the state before the step.
      batch: the step's batch.
      key: the step's PRNG key.

    Returns:
      The operation with its source line, and the inputs that were already not finite.
    """
    inputs = list(_not_finite({"parameters": state.params, "batch": batch}))
    checked = jax.jit(checkify.checkify(step, errors=checkify.nan_checks))
    compiled = checked.lower(state, batch, key).compile(compiler_options=_QUICK)
    error, _ = compiled(state, batch, key)
    made = error.get_exception()
    said = "no operation produced a NaN: a number overflowed float32"
    if made is not None:
        said = f"{str(made).strip().rstrip('.')} at {_place(made)}"
    return f"{said}; not finite before the step: {', '.join(inputs) or 'nothing'}"


def _place(made: Any) -> str:
    """Returns the innermost line of this package that an operation comes from."""
    frames = traceback.extract_tb(made.traceback_info.as_python_traceback())
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    frame = ours[-1] if ours else frames[-1]
    return f"{frame.filename}:{frame.lineno} ({frame.name}: {frame.line})"


def _not_finite(tree: Any) -> Iterator[str]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not jnp.isfinite(leaf).all():
            yield jax.tree_util.keystr(path, simple=True, separator="/")


_FULL = {errno.ENOSPC: "No space left on device", errno.EDQUOT: "Disk quota exceeded"}


@contextmanager
def disk_full_as_run_error(workdir: Path, *kinds: type[Exception]) -> Generator[None]:
    """Turns disk-full errors, wherever raised, and errors of some `kinds` into a `RunError`."""
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
        kept = f"the checkpoint of step {max(steps)} is intact" if steps else "no checkpoint yet"
        raise RunError(
            f"{str(workdir)!r}: the disk is full, {what} could not be written; {kept}. Free some "
            "space and rerun the same command to resume"
        ) from error


def hide_late_writes() -> None:
    """Silences writes that fail after the first failed write, so only its error is shown.

    The first error closes an event loop to which tensorstore's threads still report their own
    errors. Python would print a traceback for each of those, and asyncio one for each of Orbax's
    other tasks.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = hook


def _is_full(error: BaseException) -> bool:
    # tensorstore, used by Orbax, puts the system's message into errors of other types.
    known = isinstance(error, OSError) and error.errno in _FULL
    return known or any(words in str(error) for words in _FULL.values())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
