"""What a run leaves to read: metrics.jsonl, TensorBoard files, curves.png, console lines."""

import gc
import json
import os
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import tqdm
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.record_writer import RecordWriter

from albert_jax.train.curves import draw_curves, read_metrics


class RunLog:
    """Writes a run's metrics, within a context; does nothing where not `active`.

    Lines beyond `first_step` that an interrupted run left are removed, since the
    resumed run writes them again.
    """

    def __init__(self, workdir: Path, first_step: int, num_steps: int, *, active: bool = True):
        """Opens the files of `workdir`, which must exist."""
        self.active = active
        if not active:
            return
        self.path = workdir / "metrics.jsonl"
        _drop_after(self.path, first_step)
        (workdir / "tensorboard").mkdir(exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = _open_board(workdir / "tensorboard", first_step + 1)
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm.tqdm(
            initial=first_step,
            total=num_steps,
            unit="step",
            disable=not self._terminal,
            dynamic_ncols=True,
        )

    def progress(self, step: int) -> None:
        """Moves the bar on a terminal."""
        if self.active:
            self._bar.update(step - self._bar.n)

    def write(self, step: int, split: str, values: dict[str, Any]) -> None:
        """Records one line of values and shows it."""
        if not self.active:
            return
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if value is not None:
                scalar = summary.scalar(f"{split}/{name}", value)
                event = Event(wall_time=time.time(), step=step, summary=scalar)
                self._board.write(event.SerializeToString())
        self._board.flush()
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if value)
        if self._terminal and split == "train":
            self._bar.set_postfix_str(shown.partition("  learning_rate")[0])
        else:
            self.say(f"step {step:>7}  {split:<10}  {shown}")

    def draw(self, baselines: dict[str, float]) -> None:
        """Draws curves.png anew; see `draw_curves`."""
        if self.active:
            draw_curves(self.path, self.path.with_name("curves.png"), baselines)
            gc.collect()  # a drawing's parts refer to one another; left to wait, they pile up

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        if self.active:
            tqdm.tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Flushes and closes the files."""
        if self.active:
            with ExitStack() as stack:  # each, even where a full disk fails the others
                for one in (self._board, self._file, self._bar):
                    stack.callback(one.close)


def _open_board(folder: Path, purge_step: int) -> RecordWriter:
    """A TensorBoard file that hides what earlier ones say of `purge_step` and later.

    Not a `SummaryWriter`: its thread would die of a full disk, and the run wait for it.
    """
    now = time.time()
    writer = RecordWriter(str(folder / f"events.out.tfevents.{now:.0f}.{socket.gethostname()}"))
    start = SessionLog(status=SessionLog.START)
    writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
    writer.write(Event(wall_time=now, step=purge_step, session_log=start).SerializeToString())
    return writer


def _drop_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [m for m in read_metrics(path) if m["step"] <= step]
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(m) + "\n" for m in kept)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
