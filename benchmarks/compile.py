"""Measures the compile time of a training step at several depths, without running it.

    python benchmarks/compile.py --output compile.jsonl

Compiles the step of each preset's width with weights shared by all layers, and of BERT large with
none shared, from shapes alone: no parameter is ever allocated, so that the largest fits anywhere.
Prints a JSON object for each model and depth. `ratio` is its compile time over the mean of its
model's depths.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from machine import describe, record

from albert_jax.config import Config, config_from_dict
from albert_jax.config.presets import albert_preset, bert_preset
from albert_jax.train.ahead import compile_step

DEPTHS = (6, 12, 24)
MODELS = {
    **{size: albert_preset(size) for size in ("base", "large", "xlarge", "xxlarge")},
    "BERT large": bert_preset("large"),
}


def compile_once(config: Config) -> dict[str, float]:
    """Seconds to trace and compile a step, and the lines of the program."""
    found = compile_step(config, jax.devices())
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(found.state.params)),
        "trace_seconds": found.trace_seconds,
        "compile_seconds": found.compile_seconds,
        "program_lines": found.text.count("\n"),
    }


def measure(train: dict[str, Any], rounds: int) -> Iterator[dict[str, Any]]:
    """Everything that is printed; the depths of a model take turns, and the best time counts."""
    about = describe()
    for name, preset in MODELS.items():
        configs = {
            depth: config_from_dict(
                {"model": preset | {"num_hidden_layers": depth}, "train": train}
            )
            for depth in DEPTHS
        }
        compile_once(configs[DEPTHS[0]])  # warms up
        times = [{d: compile_once(c) for d, c in configs.items()} for _ in range(rounds)]
        best = {d: min((r[d] for r in times), key=lambda t: t["compile_seconds"]) for d in DEPTHS}
        mean = statistics.mean(t["compile_seconds"] for t in best.values())
        for depth, found in best.items():
            yield {
                **about,
                "model": name,
                "share": configs[depth].model.share,
                "layers": depth,
                **train,
                **found,
                "ratio": found["compile_seconds"] / mean,
            }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Times compiling a training step by depth.")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--remat", default="none", choices=("none", "dots", "full"))
    parser.add_argument("--unroll", type=int, default=1, help="layers in a pass of the loop")
    parser.add_argument("--rounds", type=int, default=2, help="compilations of each, best counts")
    parser.add_argument("--output", type=Path, help="JSON lines to append to")
    args = vars(parser.parse_args())
    output, rounds = args.pop("output"), args.pop("rounds")
    for found in measure(args, rounds):
        record(found, output)


if __name__ == "__main__":
    main()
