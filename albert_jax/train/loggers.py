"""Loggers for a run's metrics: metrics.jsonl, TensorBoard, the terminal, and your own.

To add your own logger, write a class like those here, add it to `LOGGERS` (in a config file, for
example) and name it in `config.train.loggers`.
"""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import tqdm
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.record_writer import RecordWriter

from albert_jax.config.choices import nearest
from albert_jax.data.files import replace_text
from albert_jax.train.curves import METRICS_FILE, read_metrics

Values = Mapping[str, Any]  # numbers, or None for a value that is not known


class Logger:
    """Base class of loggers, called in process 0 only; every method does nothing by default."""

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        """Opens the logger's output, with `first_step` of `num_steps` steps done.

        Hide or remove what an interrupted run wrote about later steps: the resumed run writes
        it again.
        """

    def progress(self, step: int) -> None:
        """Reports that step `step` (from 1) is done."""

    def write(self, step: int, split: str, values: Values) -> None:
        """Logs metrics of `split` ("train" or "validation") at a step."""

    def say(self, line: str) -> None:
        """Logs a line of text."""

    def close(self) -> None:
        """Closes the logger when the run ends, whether or not it succeeded."""


class JsonLines(Logger):
    """Writes metrics.jsonl, one JSON object per line."""

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        """Removes lines of steps after `first_step`, and opens the file for appending."""
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
    """Writes TensorBoard event files to tensorboard/."""

    def __init__(self, workdir: Path, first_step: int, num_steps: int):
        """Opens an event file that hides earlier events of steps after `first_step`.

        This does not use `SummaryWriter`: on a full disk its thread would die, and the run would
        wait for it forever.
        """
        folder, now = workdir / "tensorboard", time.time()
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{now:.0f}.{socket.gethostname()}"
        self._writer = RecordWriter(str(folder / name))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=now, file_version="brain.Event:2"))
        self._add(Event(wall_time=now, step=first_step + 1, session_log=start))

    def write(self, step: int, split: str, values: Values) -> None:
        """Adds a scalar for each known value."""
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
    """Prints lines to standard output; shows a progress bar if standard error is a terminal."""

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
        """Shows training metrics next to the bar if there is one; prints all others as a line."""
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
        """Closes the bar, leaving it on screen."""
        self._bar.close()


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "terminal": Terminal}


def logger_types(names: Iterable[str]) -> list[type[Logger]]:
    """Returns the logger classes of a run: metrics.jsonl and those named.

    Raises:
      ValueError: if a name is not in `LOGGERS`.
    """
    for name in names:
        if name not in LOGGERS:
            raise ValueError(
                f"config.train.loggers: {name!r} is not a logger{nearest(name, LOGGERS)}"
            )
    return [JsonLines, *(LOGGERS[name] for name in dict.fromkeys(names))]


class RunLog(Logger):
    """All loggers of a run, within a context.

    An error of the loggers here ends the run, as on a full disk. One of your own that fails is
    dropped with a warning: a network that is down should not end a run.
    """

    def __init__(self, loggers: Sequence[Logger], *, active: bool = True):
        """Keeps the loggers; a log that is not `active` prints nothing either."""
        self._loggers, self._active = list(loggers), active

    def progress(self, step: int) -> None:
        """Passes it on."""
        self._pass_on(lambda logger: logger.progress(step))

    def write(self, step: int, split: str, values: Values) -> None:
        """Passes it on."""
        self._pass_on(lambda logger: logger.write(step, split, values))

    def say(self, line: str) -> None:
        """Passes it on; prints it if there is no terminal logger to do so."""
        self._pass_on(lambda logger: logger.say(line))
        if self._active and not any(isinstance(logger, Terminal) for logger in self._loggers):
            print(line, flush=True)

    def _pass_on(self, call: Callable[[Logger], None]) -> None:
        for logger in tuple(self._loggers):
            try:
                call(logger)
            except Exception as error:
                if isinstance(logger, (JsonLines, TensorBoard, Terminal)):
                    raise
                self._loggers.remove(logger)
                self.say(
                    f"warning: the logger {type(logger).__name__} failed and is dropped: "
                    f"{type(error).__name__}: {error}"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes all loggers."""
        self.close()

    def close(self) -> None:
        """Closes each logger, even if a full disk fails the others."""
        with ExitStack() as stack:
            for logger in self._loggers:
                stack.callback(logger.close)


def open_log(
    workdir: Path, first_step: int, num_steps: int, names: Iterable[str], *, active: bool
) -> RunLog:
    """Opens the loggers of an existing run directory; none if not `active`."""
    if not active:
        return RunLog([], active=False)
    opened: list[Logger] = []
    with ExitStack() as stack:
        for logger in logger_types(names):
            opened.append(logger(workdir, first_step, num_steps))
            stack.callback(opened[-1].close)
        stack.pop_all()
    return RunLog(opened)
