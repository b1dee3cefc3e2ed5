"""What a run leaves to read: metrics.jsonl, TensorBoard files, curves.png, console lines."""

import gc
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import jax
import tqdm
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.record_writer import RecordWriter

from albert_jax.bad_steps import BadSteps
from albert_jax.metrics import Ratio, Sums


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


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl; a torn last line, left by a kill, is not one."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def draw_curves(metrics_path: Path, output: Path, baselines: dict[str, float]) -> None:
    """Draws each loss and accuracy over the steps, train and held-out.

    Args:
      metrics_path: a metrics.jsonl.
      output: a .png to write.
      baselines: metric -> a level to draw as a dotted line.
    """
    from matplotlib.figure import Figure  # half a second to import: only when drawing

    lines = read_metrics(metrics_path)
    present = {name for line in lines for name in line}
    names = [n for n in ("mlm_loss", "mlm_accuracy", "sop_loss", "sop_accuracy") if n in present]
    if not names:
        return
    figure = Figure(figsize=(5.2 * len(names), 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for split, style in {"train": "-", "validation": "o-"}.items():
            points = [(m["step"], m[name]) for m in lines if m["split"] == split and name in m]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=split, markersize=3)
        if name in baselines:
            axes.axhline(baselines[name], ls=":", color="grey", label="unigram entropy")
        unit = "nats" if name.endswith("loss") else "share right"
        axes.set(xlabel="step (optimizer updates)", ylabel=f"{name.replace('_', ' ')} ({unit})")
        axes.grid(alpha=0.3)
        axes.legend()
    temporary = output.with_name(f".{output.name}")
    figure.savefig(temporary, dpi=120, format="png")
    temporary.replace(output)


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


class Meter:
    """Adds up each step's metrics after the next step was dispatched, and logs the means.

    So the host waits for a step only while the device has another to work on. Rates
    leave out the first step after the start or after a pause.
    """

    def __init__(
        self,
        log: RunLog,
        log_every: int,
        learning_rate: Callable[[int], Any],
        flops: Callable[[Sums], float],
        peak_flops: float | None,
        sums: Sums,
        bad_steps: BadSteps,
    ):
        """Goes on from `sums`, what a checkpoint had of an unfinished interval.

        Args:
          log: where the means go.
          log_every: steps.
          learning_rate: of the number of updates done before.
          flops: model FLOPs of the steps in some sums.
          peak_flops: FLOP/s of all devices together; None where unknown.
          sums: metrics since the last logged step.
          bad_steps: judges each step.
        """
        self._log, self._log_every, self._peak_flops = log, log_every, peak_flops
        self._learning_rate, self._flops = learning_rate, flops
        self.sums, self.bad_steps, self._timed = sums, bad_steps, Sums()
        self._seconds, self._since = 0.0, None
        self._pending: tuple[int, Mapping[str, Ratio]] | None = None

    def push(self, step: int, ratios: Mapping[str, Ratio]) -> None:
        """Takes the metrics of the step just dispatched, and reads those of the one before."""
        self._read()
        self._pending = step, ratios

    def pause(self) -> None:
        """Reads what is outstanding, and stops the clock until the next step is done."""
        self._read()
        self._since = None

    def _read(self) -> None:
        if self._pending is None:
            return
        (step, ratios), self._pending = self._pending, None
        ratios = jax.device_get(dict(ratios))
        now = time.perf_counter()
        ratios = self.bad_steps.judge(step, ratios)
        self.sums.add(ratios)
        if self._since is not None:
            self._seconds += now - self._since
            self._timed.add(ratios)
        self._since = now
        self._log.progress(step)
        if step % self._log_every == 0:
            self._log.write(step, "train", self._values(step))
            self.sums, self._timed, self._seconds = Sums(), Sums(), 0.0

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
