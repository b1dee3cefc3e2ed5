"""Times a training step on real rows: tokens, fraction of peak, memory, and a comparison peer.

    python -m albert_jax.prepare --input wikipedia --tokenizer 30k-clean.model --output data/rows
    python benchmarks/step.py --config configs/base.py --config.data.path=data/rows \\
        --config.train.batch_size=4 --config.train.dtype=float32

Any setting may be overridden as for training: length, batch, dtype, attention, unroll, remat.
Prints one JSON object and appends it to --output.

--peer DATA runs transformers (peer.py) on the same machine in alternating rounds, on the rows of
DATA, prepared with --no_packing, because transformers takes one chunk per padded row. --full gives
both the same rows, one chunk each, without any padding.
"""

import argparse
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer needs memory too

import jax
import numpy as np
from machine import describe, matmul_flops, record

from albert_jax.config import Config
from albert_jax.config.load import load_config
from albert_jax.tasks.base import MeanSums
from albert_jax.train import Experiment, make_experiment

Batch = dict[str, Any]
_SOME_PIECE = 5


class Ours:
    """The compiled step of an experiment, on some batches."""

    def __init__(self, experiment: Experiment, batches: list[Batch]):
        """Compiles, and warms up."""
        self.batches, self.key = batches, jax.random.key(1)
        self.state = experiment.spec.init(jax.random.key(0))
        start = time.perf_counter()
        self.step = experiment.train_step.lower(self.state, batches[0], self.key).compile()
        self.compile_seconds = time.perf_counter() - start
        sums = MeanSums()
        for batch in batches:
            self.state, metrics = self.step(self.state, batch, self.key)
            sums.add(metrics)
        self.tokens = sums.total("tokens")
        self.flops = experiment.flops(sums)

    def seconds(self) -> list[float]:
        """Of a step, over every batch once."""
        found = []
        for batch in self.batches:
            start = time.perf_counter()
            self.state, _ = jax.block_until_ready(self.step(self.state, batch, self.key))
            found.append(time.perf_counter() - start)
        return found

    def peak_bytes(self) -> int:
        """Most bytes held on the device so far; on a CPU, those that the program asks for."""
        stats = jax.devices()[0].memory_stats()
        if stats:
            return stats["peak_bytes_in_use"]
        sizes = self.step.memory_analysis()
        return sizes.argument_size_in_bytes + sizes.temp_size_in_bytes


class Peer:
    """transformers in a process of its own, which sleeps while we compute."""

    def __init__(self, config: Config, batches: list[Batch]):
        """Compiles there."""
        rows = [rows_for_peer(batch) for batch in batches]
        self.tokens = sum(int(part["attention_mask"].sum()) for part in rows)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.npz"
            np.savez(path, **{f"{name}/{i}": r[name] for i, r in enumerate(rows) for name in r})
            script = Path(__file__).with_name("peer.py")
            model = json.dumps(dataclasses.asdict(config.model))
            self.process = subprocess.Popen(
                [sys.executable, script, path, model, config.train.dtype],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            (self.compile_seconds,) = self.seconds()

    def seconds(self) -> list[float]:
        """Of a step, over every batch once; the first time, of compiling."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with exit code {self.process.wait()}")
        return json.loads(line)


def plan_and_batches(config: Config, count: int) -> tuple[Experiment, list[Batch]]:
    """An experiment in a directory that is thrown away, and its first batches."""
    with tempfile.TemporaryDirectory() as folder:
        experiment = make_experiment(config, Path(folder) / "run")
        stream = experiment.train_batches(0)
        batches = list(itertools.islice(stream, count))
        stream.close()
    return experiment, batches


def as_full_rows(batch: Batch) -> Batch:
    """The batch with one chunk a row, and pieces in place of padding."""
    ids = np.asarray(batch["input_ids"])
    positions = np.broadcast_to(np.arange(ids.shape[1], dtype=ids.dtype), ids.shape)
    changed = {
        "input_ids": np.where(ids == 0, _SOME_PIECE, ids),
        "segment_ids": np.ones_like(ids),
        "position_ids": positions,
    }
    placed = {name: jax.device_put(a, batch[name].sharding) for name, a in changed.items()}
    return batch | placed


def rows_for_peer(batch: Batch) -> dict[str, np.ndarray]:
    """Rows of one chunk as transformers takes them; labels are -100 where nothing is masked."""
    host = {name: np.asarray(array) for name, array in batch.items()}
    labels = np.full(host["input_ids"].shape, -100)
    rows, slots = np.nonzero(host["mlm_weights"])
    labels[rows, host["mlm_positions"][rows, slots]] = host["mlm_labels"][rows, slots]
    return {
        "input_ids": host["input_ids"].astype(np.int64),
        "attention_mask": (host["segment_ids"] > 0).astype(np.int64),
        "token_type_ids": host["token_type_ids"].astype(np.int64),
        "labels": labels,
        "sentence_order_label": host["sentence_labels"][:, 0].astype(np.int64),
    }


def peer_batches(config: Config, folder: str, count: int) -> list[Batch]:
    """Batches of data that was prepared with --no_packing."""
    data = dataclasses.replace(config.data, path=folder, packing=False)
    return plan_and_batches(dataclasses.replace(config, data=data), count)[1]


def measure(args: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    """Everything that is printed."""
    config = load_config(args.config, overrides)
    experiment, batches = plan_and_batches(config, args.batches)
    if args.full:
        batches = [as_full_rows(batch) for batch in batches]
    with jax.set_mesh(experiment.mesh):
        ours = Ours(experiment, batches)
        peer = None
        if args.peer:
            rows = batches if args.full else peer_batches(config, args.peer, args.batches)
            peer = Peer(config, rows)
        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        peak = 0.0
        for _ in range(args.rounds):
            peak = max(peak, matmul_flops(config.train.dtype))
            seconds["ours"] += ours.seconds()
            seconds["peer"] += peer.seconds() if peer else []
    step = statistics.median(seconds["ours"])
    slots = batches[0]["input_ids"].size
    kind = "full" if args.full else "packed" if config.data.packing else "padded"
    found: dict[str, Any] = {
        "command": " ".join(sys.argv),
        **describe(),
        "rows": f"{kind}, {' × '.join(map(str, batches[0]['input_ids'].shape))}",
        "compile_seconds": ours.compile_seconds,
        "step_seconds": step,
        "slots_per_second": slots / step,
        "tokens_per_second": ours.tokens / len(batches) / step,
        "model_flops_per_second": ours.flops / len(batches) / step,
        "matmul_flops_per_second": peak,
        "share_of_matmul": ours.flops / len(batches) / step / peak,
        "peak_bytes": ours.peak_bytes(),
    }
    if peer:
        theirs = statistics.median(seconds["peer"])
        found |= {
            "peer_compile_seconds": peer.compile_seconds,
            "peer_step_seconds": theirs,
            "peer_tokens_per_second": peer.tokens / len(batches) / theirs,
        }
        found["ratio"] = found["tokens_per_second"] / found["peer_tokens_per_second"]
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Times a training step on real rows.")
    parser.add_argument("--config", required=True, help="as for albert_jax.train")
    parser.add_argument("--batches", type=int, default=4, help="different batches")
    parser.add_argument("--rounds", type=int, default=3, help="times that each batch is timed")
    parser.add_argument("--full", action="store_true", help="rows of one chunk, without padding")
    parser.add_argument("--peer", metavar="DATA", help="data of one chunk a row, for transformers")
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    args, overrides = parser.parse_known_args()
    record(measure(args, overrides), args.output)


if __name__ == "__main__":
    main()
