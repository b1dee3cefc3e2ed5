"""Pretraining and fine-tuning of ALBERT in JAX.

`albert_jax.load(path)` loads a trained model. The commands are `albert-jax train`, `albert-jax
prepare` and so on, or `python -m albert_jax.train`; `albert-jax` without arguments lists them.
"""

import difflib
import runpy
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from albert_jax.predict.load import load

__all__ = ["load", "main"]

COMMANDS = {
    "prepare": "makes a vocabulary and training rows from text files",
    "prepare.beam": "the same on many machines, with Apache Beam",
    "train": "pretrains or fine-tunes a model, or resumes a run",
    "evaluate": "measures a trained model on held-out data",
    "predict": "writes a fine-tuned model's predictions for examples",
    "predict.index": "makes a collection of documents searchable",
    "predict.ask": "answers questions from such a collection",
    "convert": "converts checkpoints from and to transformers and google-research/albert",
    "export": "writes a model for deployment, as StableHLO or ONNX",
    "serve": "answers over HTTP",
    "estimate": "says what a run needs on accelerators that need not be here",
    "inspect": "shows the batch of a training step: documents, pairs and masks",
    "sweep": "trains a table of the paper, or a search over settings and seeds",
}


def __getattr__(name: str) -> Any:
    # On first use: data preparation and reader processes must not import JAX.
    if name == "load":
        from albert_jax.predict.load import load

        return load
    raise AttributeError(f"module 'albert_jax' has no attribute {name!r}")


def main() -> None:
    """Runs the command `albert-jax`: `albert-jax NAME ...` is `python -m albert_jax.NAME ...`."""
    name, *sys.argv[1:] = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        try:
            runpy.run_module(f"{__name__}.{name}", run_name="__main__", alter_sys=True)
        except KeyboardInterrupt:  # during imports; later, a command says what it leaves behind
            print("error: interrupted", file=sys.stderr)
            sys.exit(130)
    elif name == "--version":
        print(metadata.version(__name__))
    elif name in ("--help", "-h"):
        lines = [f"  {command:<13} {what}" for command, what in COMMANDS.items()]
        print("\n".join(["usage: albert-jax COMMAND [--help] ...", "", *lines]))
    else:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0)[0]
        print(f"error: no command {name!r}; did you mean {near!r}?", file=sys.stderr)
        sys.exit(2)
