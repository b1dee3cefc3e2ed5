"""What goes wrong in a run: bad steps, where a NaN was made, a full disk."""

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

    def judge(self, step: int, metrics: Mapping[str, Mean]) -> dict[str, Mean]:
        """What of a step's metrics is to be added up.

        Raises:
          RunError: where this bad step is one too many.
        """
        loss, norm = float(metrics["loss"].total), float(metrics["grad_norm"].total)
        if metrics["skipped"].total:
            self.skipped += 1
            self._tell(step, f"loss {loss:.4g}, gradient norm {norm:.4g}: update skipped")
            return {"skipped": metrics["skipped"]}
        rise = loss - statistics.fmean(self._recent) if self._recent else -math.inf
        if 0 < self._config.max_loss_rise < rise:
            self._tell(step, f"loss {loss:.4g}, {rise:.4g} above the mean of the steps before")
            return {**metrics, "spikes": Mean(1.0, 0.0)}
        self.in_row = 0
        if self._config.max_loss_rise:
            self._recent.append(loss)
        return dict(metrics)

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


_PACKAGE = Path(__file__).parents[1]
# Compiled to run once: half the time it takes otherwise.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def first_nan(step: Callable[..., Any], state: Any, batch: Any, key: jax.Array) -> str:
    """Computes a step again, each operation checked, and says where the first NaN was made.

    Args:
      step: (state, batch, key) -> anything; what it is given may be donated.
      state: as it was before the step.
      batch: the step's.
      key: the step's.

    Returns:
      The operation with its source line, and what of the inputs was not finite already.
    """
    inputs = list(_not_finite({"parameters": state.params, "batch": batch}))
    checked = jax.jit(checkify.checkify(step, errors=checkify.nan_checks))
    compiled = checked.lower(state, batch, key).compile(compiler_options=_QUICK)
    error, _ = compiled(state, batch, key)
    made = error.get_exception()
    said = "no operation made a NaN: a number grew beyond float32"
    if made is not None:
        said = f"{str(made).strip().rstrip('.')} at {_place(made)}"
    return f"{said}; not finite before the step: {', '.join(inputs) or 'nothing'}"


def _place(made: Any) -> str:
    """The innermost line of this package that an operation comes from."""
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
    """Turns errors of a full disk, whoever met them, and of some `kinds` into a `RunError`."""
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
        kept = f"the checkpoint of step {max(steps)} is whole" if steps else "no checkpoint yet"
        raise RunError(
            f"{str(workdir)!r}: the disk is full, {what} could not be written; {kept}. Make "
            "space: the same command goes on from there"
        ) from error


def hide_late_writes() -> None:
    """From now on, writes that fail after the first one do not speak beside its error.

    tensorstore hands what its threads meet to an event loop, which that error has closed, and
    Python would print a traceback for each; asyncio would for each of Orbax's other tasks.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    shown = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            shown(unraisable)

    sys.unraisablehook = hook


def _is_full(error: BaseException) -> bool:
    # tensorstore, under Orbax, gives the system's words in errors of other types.
    known = isinstance(error, OSError) and error.errno in _FULL
    return known or any(words in str(error) for words in _FULL.values())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
