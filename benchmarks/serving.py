"""Loads the server with requests, from 1 to 64 at once, and with some that are broken off.

    python benchmarks/serving.py --checkpoint sst2-onnx --input texts.txt --output serving.jsonl

The model must classify. Server and load have a core each. Prints one JSON object for each number
of requests at once, and appends it to --output:

  requests a second, and milliseconds to the answer: the median and the 99th percentile
  lost: requests without an answer; wrong: answers that are not the model's own
  memory: of the server, in MB, after that load

The last line is of requests that are broken off half way, 1,000 of them while others are answered.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from machine import describe, record

import albert_jax

CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
BROKEN = 1000


def memory_mb(process: int) -> float:
    """What a process holds."""
    words = Path(f"/proc/{process}/status").read_text().split()
    return int(words[words.index("VmRSS:") + 1]) / 1024


class Load:
    """Requests to a server, and what became of them."""

    def __init__(self, url: str, wanted: dict[str, dict[str, float]]):
        self.url = url
        self.wanted, self.texts = wanted, list(wanted)
        self.times: list[float] = []
        self.lost = self.wrong = 0

    async def ask(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """One request."""
        text, begin = draw.choice(self.texts), time.perf_counter()
        try:
            response = await client.post("/classify", json={"texts": [text]})
            (found,) = response.raise_for_status().json()["results"]
        except (httpx.HTTPError, KeyError):
            self.lost += 1
            return
        self.times.append(time.perf_counter() - begin)
        near = [abs(found["probabilities"][k] - p) < 1e-4 for k, p in self.wanted[text].items()]
        self.wrong += not all(near)

    async def keep_asking(self, seconds: float, seed: int) -> None:
        """One request after another."""
        draw, end = random.Random(seed), time.perf_counter() + seconds
        # A client for each, since the pool of one with many connections takes longer than answers.
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            while time.perf_counter() < end:
                await self.ask(client, draw)


async def break_off(port: int, text: str, draw: random.Random) -> None:
    """Sends a part of a request, or all of it, and leaves."""
    body = json.dumps({"texts": [text]}).encode()
    head = f"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    whole = head.encode() + body
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(whole[: draw.randrange(1, len(whole) + 1)])
    await writer.drain()
    if draw.random() < 0.5:
        await asyncio.sleep(0.002)
    writer.transport.abort()


async def measure(
    port: int, server: int, wanted: Any, seconds: float, output: Path | None
) -> None:
    """All loads, one after another."""
    url = f"http://127.0.0.1:{port}"
    for count in CONCURRENCY:
        load, begin = Load(url, wanted), time.perf_counter()
        await asyncio.gather(*(load.keep_asking(seconds, seed) for seed in range(count)))
        report(load, time.perf_counter() - begin, server, {"at_once": count}, output)
    load, draw, begin = Load(url, wanted), random.Random(0), time.perf_counter()
    asking = asyncio.gather(*(load.keep_asking(seconds, seed) for seed in range(8)))
    for _ in range(BROKEN):
        await break_off(port, draw.choice(load.texts), draw)
    await asking
    report(load, time.perf_counter() - begin, server, {"at_once": 8, "broken_off": BROKEN}, output)


def report(
    load: Load, seconds: float, server: int, settings: dict[str, Any], output: Path | None
) -> None:
    """Writes a line."""
    median, worst = (1000 * float(np.percentile(load.times, p)) for p in (50, 99))
    found = {
        "requests": len(load.times),
        "requests_per_second": len(load.times) / seconds,
        "p50_ms": median,
        "p99_ms": worst,
        "lost": load.lost,
        "wrong": load.wrong,
        "memory_mb": memory_mb(server),
    }
    record({"command": " ".join(sys.argv), **describe(), **settings, **found}, output)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--input", required=True, type=Path, help="texts, one per line")
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    texts = [line for line in args.input.read_text("utf-8").splitlines() if line.strip()][:1000]
    wanted = {
        text: one.probabilities
        for text, one in zip(texts, albert_jax.load(args.checkpoint).classify(texts), strict=True)
    }
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, others or [first])
    server = subprocess.Popen(
        [sys.executable, "-m", "albert_jax.serve", "--checkpoint", args.checkpoint, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, [first]),
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().rpartition("http://")[2].split(":")[1])
        asyncio.run(measure(port, server.pid, wanted, args.seconds, args.output))
    finally:
        server.terminate()
        server.communicate(timeout=60)


if __name__ == "__main__":
    main()
