"""Checks that a fine-tuned run's predictions in transformers are the same, over a whole split.

    python benchmarks/fine_tuned_parity.py RUN DATA [OUTPUT]

Exports RUN, lets transformers' class for its head read the export, gives both the rows of all
validation examples in DATA, and prints how many predictions agree, how many distinct ones there
are, and how far outputs differ, as a line of JSON that OUTPUT gets too. Needs torch and
transformers (tests/requirements.txt). The exit code is 1 where predictions differ.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from machine import describe, record
from scipy.special import log_softmax

import albert_jax
from albert_jax.checkpoints.formats.hf_config import CLASSES
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.checkpoints.read import read
from albert_jax.tasks.batching import eval_batches
from albert_jax.tasks.features import length_of
from albert_jax.tasks.question_answering import LOWEST
from albert_jax.tasks.registry import read_task

_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
_BATCH = 32


def run_transformers(kind: str, folder: Path, rows: Sequence[Any]) -> list[dict[str, np.ndarray]]:
    """What our task of that kind calls its outputs, for each row."""
    model = getattr(transformers, f"Albert{CLASSES[kind]}").from_pretrained(folder).eval()
    found: list[Any] = [None] * len(rows)
    for members, batch in eval_batches(rows, _BATCH, max(map(length_of, rows))):
        with torch.no_grad():
            output = model(**{name: torch.from_numpy(batch[name]).long() for name in _INPUTS})
        if kind == "question_answering":
            may_BT = batch["begins"] >= 0
            may_BT[:, 0] = True
            logits_B2T = np.stack([output.start_logits, output.end_logits], 1)
            name, values = "logits", np.where(may_BT[:, None], logits_B2T, LOWEST)
        elif kind == "token_classification":
            name, values = "log_probs", log_softmax(output.logits.numpy(), axis=-1)
        else:
            name, values = "logits", output.logits.numpy()
        for position, member in enumerate(members):
            found[member] = {name: values[position]}
    return found


def without_padding(kind: str, output: dict[str, np.ndarray], row: Any) -> np.ndarray:
    """A row's values, as far as it reaches."""
    (values,) = output.values()
    if kind == "token_classification":
        return values[: length_of(row)]
    return values[:, : length_of(row)] if kind == "question_answering" else values


def compare(run: str, data: str) -> dict[str, Any]:
    """How far both agree on the validation examples."""
    model, kind = albert_jax.load(run), read(run).kind
    splits = read_task(model.task.config.name, data).splits
    examples = [e for name, s in splits.items() if name.startswith("validation") for e in s]
    ours, features = model.run(examples)
    with tempfile.TemporaryDirectory() as folder:
        write_hf(read(run), Path(folder))
        theirs = run_transformers(kind, Path(folder), features.rows)
    values = [
        [
            without_padding(kind, output, row)
            for output, row in zip(side, features.rows, strict=True)
        ]
        for side in (ours, theirs)
    ]
    differences = [np.abs(a - b).max() for a, b in zip(*values, strict=True)]
    said = [model.task.predictions(side, features, len(examples)) for side in (ours, theirs)]
    if kind == "question_answering":
        threshold = model.validation.get("null_threshold", 0.0)
        said = [list(model.task.texts(found, examples, threshold).values()) for found in said]
    is_score = kind == "classification" and not model.labels
    equal = (
        np.isclose(*said, atol=1e-4) if is_score else [a == b for a, b in zip(*said, strict=True)]
    )
    return {
        "run": run,
        "head": CLASSES[kind],
        "examples": len(examples),
        "equal_predictions": int(np.sum(equal)),
        "distinct_predictions": len({str(prediction) for prediction in said[0]}),
        "largest_difference": float(max(differences)),
    }


def main(run: str, data: str, output: str | None = None) -> int:
    """The command; returns the exit code."""
    found = compare(run, data)
    record(describe() | found, Path(output) if output else None)
    return int(found["equal_predictions"] < found["examples"])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
