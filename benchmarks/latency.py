"""Times a classifier as it answers: every form of ours, beside transformers and its ONNX export.

    python benchmarks/latency.py [--config base] [--threads 1 2] --output latency.jsonl

All have the same random weights, two classes, float32 but for int8, and get ids. Each runs in a
process of its own, bound to as many cores as it has threads. Prints one JSON object for each, and
appends it to --output:

  milliseconds at one text of 16, 128 and 512 tokens: the median and the 99th percentile
  tokens per second of 32 texts of 128
  cold start: seconds from the start of Python to the first answer to 16 tokens
  memory: the most that the process held, in MB
  difference: the largest between its logits and those of `jit`

The export of transformers needs `pip install onnxscript`.

A new length stalls a compiled program once. That is `new_length_seconds`: of 112 tokens after 128.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LENGTHS = (16, 128, 512)
BATCH, BATCH_LENGTH = 32, 128
OURS = ("jit", "stablehlo", "onnx", "int8")
PEERS = ("transformers", "transformers compiled", "transformers onnx")
FILES = {
    "onnx": "onnx/model.onnx",
    "int8": "int8/model.onnx",
    "transformers onnx": "peer.onnx",
}  # run by onnxruntime alone
Answer = Callable[[np.ndarray], np.ndarray]  # from ids [B,T] to logits [B,2]


def ids_of(rows: int, length: int, vocab_size: int) -> np.ndarray:
    """Drawn ids, without special ones."""
    return np.random.default_rng(length).integers(5, vocab_size, (rows, length))


def batch_of(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Ids as texts without padding."""
    return {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}


def prepare(folder: Path, config: str) -> None:
    """Writes the weights for transformers, and all exports."""
    import jax
    from flax import nnx

    import albert_jax
    from albert_jax.checkpoints.formats.huggingface import write_hf
    from albert_jax.checkpoints.weights import Weights
    from albert_jax.config.load import load_config
    from albert_jax.export.write import write_export
    from albert_jax.model.albert import Albert
    from albert_jax.model.heads import KINDS

    model = dataclasses.replace(load_config(config).model, max_position_embeddings=512)
    network = Albert(model, KINDS["classification"], num_labels=2, rngs=nnx.Rngs(0))
    params = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    write_hf(Weights(model, params, "classification", labels=("no", "yes")), folder / "hf")
    loaded = albert_jax.load(folder / "hf")
    for name, to, is_quantized in (
        ("stablehlo", "stablehlo", False),
        ("onnx", "onnx", False),
        ("int8", "onnx", True),
    ):
        (folder / name).mkdir()
        write_export(loaded, folder / name, to, is_quantized)


def prepare_peer(folder: Path) -> None:
    """Writes transformers' model by torch's ONNX exporter, with any batch and length."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "hf").eval()
    ids = ids_of(2, 16, model.config.vocab_size)
    rows, tokens = torch.export.Dim("rows"), torch.export.Dim("tokens", max=512)
    arguments = {name: torch.from_numpy(array) for name, array in batch_of(ids).items()}
    torch.onnx.export(
        model,
        kwargs=arguments,
        f=str(folder / "peer.onnx"),
        dynamic_shapes={name: {0: rows, 1: tokens} for name in arguments},
        dynamo=True,
        external_data=False,
        optimize=True,
    )


def answer_of(name: str, folder: Path, threads: int) -> Answer:
    """Returns a model, loaded."""
    if name in ("jit", "stablehlo"):
        import albert_jax

        program = albert_jax.load(folder / ("hf" if name == "jit" else name))._program

        def ours(ids: np.ndarray) -> np.ndarray:
            return program({k: v.astype(np.int32) for k, v in batch_of(ids).items()})["logits"]

        return ours
    if name in FILES:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(folder / FILES[name], options)
        return lambda ids: session.run(None, batch_of(ids))[0]
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "hf").eval()
    run = torch.compile(model) if name == "transformers compiled" else model

    def theirs(ids: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            given = torch.from_numpy(ids)
            return run(input_ids=given, attention_mask=torch.ones_like(given)).logits.numpy()

    return theirs


def measure(name: str, folder: Path, threads: int, seconds: float, started: float) -> None:
    """Prints what a model takes."""
    vocab_size = json.loads((folder / "hf" / "config.json").read_text())["vocab_size"]
    answer = answer_of(name, folder, threads)
    answer(ids_of(1, 16, vocab_size))
    found: dict[str, Any] = {"cold_start_seconds": time.time() - started}
    logits = {}
    for length in LENGTHS:
        ids = ids_of(1, length, vocab_size)
        logits[length] = answer(ids)[0].tolist()  # compiles, too
        times = timed(lambda ids=ids: answer(ids), seconds)
        median, worst = (1000 * np.percentile(times, p) for p in (50, 99))
        found |= {f"p50_ms_{length}": median, f"p99_ms_{length}": worst}
        if length == 128:
            begin = time.perf_counter()
            answer(ids_of(1, 112, vocab_size))
            found["new_length_seconds"] = time.perf_counter() - begin
    batch = ids_of(BATCH, BATCH_LENGTH, vocab_size)
    answer(batch)
    times = timed(lambda: answer(batch), seconds, least=5)
    found["tokens_per_second"] = batch.size / float(np.median(times))
    # Not `ru_maxrss`, in which the process that began this one counts too.
    status = Path("/proc/self/status").read_text().split()
    found["memory_mb"] = int(status[status.index("VmHWM:") + 1]) / 1024
    print(json.dumps(found | {"logits": logits}))


def timed(run: Callable[[], Any], seconds: float, least: int = 20) -> list[float]:
    """Seconds of each of several calls, at least so many and for about `seconds`."""
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return times


def in_its_own_process(name: str, folder: Path, threads: int, seconds: float) -> dict[str, Any]:
    """What a model takes, in a new process on as many cores as threads."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    words = [sys.executable, __file__, "--one", name, "--folder", folder, "--seconds", seconds]
    done = subprocess.run(
        [str(word) for word in (*words, "--threads", threads, "--started", time.time())],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", default="base")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--models", nargs="+", choices=OURS + PEERS, default=OURS + PEERS)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", choices=OURS + PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.one, args.folder, args.threads[0], args.seconds, args.started)
        return
    from machine import describe, record

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, args.config)
        if "transformers onnx" in args.models:
            prepare_peer(folder)
        for threads in args.threads:
            wanted = None
            for model in args.models:
                found = in_its_own_process(model, folder, threads, args.seconds)
                logits = found.pop("logits")
                wanted = wanted or logits
                difference = max(
                    abs(a - b) for n in logits for a, b in zip(logits[n], wanted[n], strict=True)
                )
                line = {"model": model, "threads": threads, **found, "difference": difference}
                record({"command": " ".join(sys.argv), **describe(), **line}, args.output)


if __name__ == "__main__":
    main()
