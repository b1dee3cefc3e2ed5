"""Measures the training loop's overhead over the step that it runs: data, metrics, logging.

    python benchmarks/loop.py --config configs/tiny.py --config.data.path=data/rows

Runs `train()` itself, without evaluations and saves. Every --steps steps, pauses it to time the
bare compiled step on the same batches, which are then on the device. Prints one JSON object and
appends it to --output. On a CPU the reader threads share the cores with the step, so the CPU time
of the loop's own thread is reported too.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import closing, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import jax
from machine import describe, record

from albert_jax.config import Config
from albert_jax.config.load import load_config
from albert_jax.train import Experiment, make_experiment
from albert_jax.train.loop import train

_UNTIMED = 8  # more than are read ahead: steps of a round before its clock starts


class Times(NamedTuple):
    """Seconds a step: by the clock, and computed by the thread that dispatches."""

    wall: float
    thread: float


class Stopwatch:
    """Seconds a step since it was made."""

    def __init__(self):
        self._wall, self._thread = time.perf_counter(), time.thread_time()

    def read(self, steps: int) -> Times:
        """The time so far, shared by so many steps."""
        wall, thread = time.perf_counter() - self._wall, time.thread_time() - self._thread
        return Times(wall / steps, thread / steps)


class Rounds:
    """An experiment's step and batches: rounds of the loop and of the bare step take turns."""

    def __init__(self, experiment: Experiment, steps: int, rounds: int):
        """Compiles the bare step."""
        self._experiment, self._steps, self._rounds = experiment, steps, rounds
        self._last: Any = None  # what the loop's last step gave
        self._key, self._bare = jax.random.key(1), None
        self._state = experiment.spec.init(jax.random.key(0))
        self.loop: list[Times] = []
        self.bare: list[Times] = []

    def step(self, state: Any, batch: Any, key: Any) -> Any:
        """The experiment's step, whose result can be waited for."""
        state, self._last = self._experiment.train_step(state, batch, key)
        return state, self._last

    def batches(self, first_step: int) -> Generator[Any, None, None]:
        """The batches; between the rounds, the bare step runs on those of the last one."""
        with closing(self._experiment.train_batches(first_step)) as stream:
            for _ in range(self._rounds):
                for _ in range(_UNTIMED):
                    yield next(stream)
                jax.block_until_ready(self._last)
                watch, seen = Stopwatch(), []
                for _ in range(self._steps):
                    seen.append(next(stream))
                    yield seen[-1]
                jax.block_until_ready(self._last)
                self.loop.append(watch.read(self._steps))
                self.bare.append(self._run_bare(seen))

    def _run_bare(self, batches: list[Any]) -> Times:
        if self._bare is None:
            lowered = self._experiment.train_step.lower(self._state, batches[0], self._key)  # pyright: ignore
            self._bare = lowered.compile()
        for batch in batches[:2]:
            self._state, metrics = jax.block_until_ready(self._bare(self._state, batch, self._key))
        watch, metrics = Stopwatch(), None
        for batch in batches:
            self._state, metrics = self._bare(self._state, batch, self._key)
        jax.block_until_ready((self._state, metrics))
        return watch.read(len(batches))


def timed_rounds(config: Config, steps: int, rounds: int) -> Rounds:
    """Runs the loop."""
    # More steps than will be run: evaluating and saving would come with the last.
    never = config.train.num_steps + rounds * (steps + _UNTIMED)
    settings = {"num_steps": never, "eval_every": never, "checkpoint_every": never}
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        experiment = make_experiment(config, Path(folder) / "run")
        with jax.set_mesh(experiment.mesh):
            found = Rounds(experiment, steps, rounds)
        train(experiment._replace(train_step=found.step, train_batches=found.batches))
    return found


def measure(config: Config, steps: int, rounds: int) -> dict[str, Any]:
    """Everything that is printed; the first round warms up."""
    found = timed_rounds(config, steps, rounds + 1)
    loop, bare = found.loop[1:], found.bare[1:]

    def median(times: list[Times], name: str) -> float:
        return statistics.median(getattr(t, name) for t in times)

    return {
        **describe(),
        "model": dataclasses.asdict(config.model),
        "batch_size": config.train.batch_size,
        "seq_len": config.data.seq_len,
        "dtype": config.train.dtype,
        "log_every": config.train.log_every,
        "steps": steps,
        "rounds": rounds,
        "loop_ms": 1e3 * median(loop, "wall"),
        "bare_ms": 1e3 * median(bare, "wall"),
        # Of each round and its neighbour: what drifts meanwhile, drifts in both.
        "overhead": statistics.median(
            a.wall / b.wall - 1 for a, b in zip(loop, bare, strict=True)
        ),
        "loop_thread_ms": 1e3 * median(loop, "thread"),
        "bare_thread_ms": 1e3 * median(bare, "thread"),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Times the training loop against its bare step.")
    parser.add_argument("--config", required=True, help="as for albert_jax.train")
    parser.add_argument("--steps", type=int, default=100, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the loop and the step")
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    args, overrides = parser.parse_known_args()
    record(measure(load_config(args.config, overrides), args.steps, args.rounds), args.output)


if __name__ == "__main__":
    main()
