"""Where a run's metrics go: metrics.jsonl, TensorBoard, the terminal, and loggers of your own.

A logger of your own is a class like those here, put into `LOGGERS` (in a config file, say) and
named in `config.train.loggers`.
"""

import json
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import tqdm
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.record_writer import RecordWriter

from albert_jax.config.schema import nearest
from albert_jax.data.files import replace_text
from albert_jax.train.curves import METRICS_FILE, read_metrics

Values = Mapping[str, Any]  # numbers, or None where one is not known


class Logger:
    """What a run tells its loggers, in process 0 alone; each method does nothing by default."""

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        """Opens what it writes to; `first_step` steps of `num_steps` are done.

        What an interrupted run has written of later steps is to be hidden or removed: the
        resumed run writes it again.
        """

    def progress(self, step: int) -> None:
        """Step `step` (from 1) is done."""

    def write(self, step: int, split: str, values: Values) -> None:
        """Metrics of `split` ("train" or "validation") at a step."""

    def say(self, line: str) -> None:
        """A line for a person to read."""

    def close(self) -> None:
        """The run ends, well or not."""


class JsonLines(Logger):
    """metrics.jsonl: an object a line."""

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        """Removes the lines after `first_step`, and appends."""
        path = workdir / METRICS_FILE
        if path.exists():
            kept = [m for m in read_metrics(path) if m["step"] <= first_step]
            replace_text(path, "".join(json.dumps(m) + "\n" for m in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, step: int, split: str, values: Values) -> None:
        """Appends a line."""
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoard(Logger):
    """Event files in tensorboard/."""

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        """Opens a file that hides what earlier ones say of steps after `first_step`.

        Not a `SummaryWriter`: its thread would die of a full disk, and the run wait for it.
        """
        folder, now = workdir / "tensorboard", time.time()
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{now:.0f}.{socket.gethostname()}"
        self._writer = RecordWriter(str(folder / name))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=now, file_version="brain.Event:2"))
        self._add(Event(wall_time=now, step=first_step + 1, session_log=start))

    def write(self, step: int, split: str, values: Values) -> None:
        """Adds a scalar for each value that is known."""
        for name, value in values.items():
            if value is not None:
                scalar = summary.scalar(f"{split}/{name}", value)
                self._add(Event(wall_time=time.time(), step=step, summary=scalar))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _add(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())


class Terminal(Logger):
    """Lines on standard output, and a progress bar where standard error is a terminal."""

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        """Shows the bar."""
        self._has_bar = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            initial=first_step,
            total=num_steps,
            unit="step",
            disable=not self._has_bar,
            dynamic_ncols=True,
        )

    def progress(self, step: int) -> None:
        """Moves the bar."""
        self._bar.update(step - self._bar.n)

    def write(self, step: int, split: str, values: Values) -> None:
        """Shows training metrics beside the bar if there is one, all others as a line."""
        known = {name: value for name, value in values.items() if value is not None}
        shown = "  ".join(
            f"{name} {value:.4g}" for name, value in known.items() if value or name != "skipped"
        )
        if self._has_bar and split == "train":
            self._bar.set_postfix_str(shown.partition("  learning_rate")[0])
        else:
            self.say(f"step {step:>7}  {split:<10}  {shown}")

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        tqdm.tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "terminal": Terminal}


def logger_types(names: Iterable[str]) -> list[type[Logger]]:
    """The loggers that a run writes to: metrics.jsonl, and those named.

    Raises:
      ValueError: for a name that is not in `LOGGERS`.
    """
    for name in names:
        if name not in LOGGERS:
            raise ValueError(f"config.train.loggers: no logger {name!r}{nearest(name, LOGGERS)}")
    return [JsonLines, *(LOGGERS[name] for name in names)]


class RunLog(Logger):
    """All loggers of a run, within a context."""

    def __init__(self, loggers: Sequence[Logger]):
        """Passes all that it is told on to `loggers`; none of them, where a process is silent."""
        self._loggers = loggers

    def progress(self, step: int) -> None:
        """Tells all."""
        for logger in self._loggers:
            logger.progress(step)

    def write(self, step: int, split: str, values: Values) -> None:
        """Tells all."""
        for logger in self._loggers:
            logger.write(step, split, values)

    def say(self, line: str) -> None:
        """Tells all."""
        for logger in self._loggers:
            logger.say(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes all."""
        self.close()

    def close(self) -> None:
        """Closes each, even where a full disk fails the others."""
        with ExitStack() as stack:
            for logger in self._loggers:
                stack.callback(logger.close)


def open_log(
    workdir: Path, first_step: int, num_steps: int, names: Iterable[str], *, active: bool
) -> RunLog:
    """Opens the loggers of a run directory, which must exist; none where not `active`."""
    if not active:
        return RunLog([])
    opened: list[Logger] = []
    with ExitStack() as stack:
        for logger in logger_types(names):
            opened.append(logger(workdir, first_step, num_steps))
            stack.callback(opened[-1].close)
        stack.pop_all()
    return RunLog(opened)
