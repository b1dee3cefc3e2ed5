"""The command `python -m albert_jax.predict`: writes prediction files for leaderboards."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_jax.checkpoints.read import AVERAGE
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.config.load import user_path
from albert_jax.predict.load import load
from albert_jax.tasks.examples import TaskData
from albert_jax.tasks.finetuning import FinetuningTask
from albert_jax.tasks.registry import read_task


def predict(
    checkpoint: str, source: str, output: Path, split: str | None = None, average: int = 1
) -> list[str]:
    """Writes a fine-tuned model's predictions in the official format of its task.

    Args:
      checkpoint: the fine-tuned model, anything that `load` reads.
      source: examples, anything that the task reads: a directory, a file, `tfds:NAME`.
      output: the directory to write to.
      split: one split of a directory. By default every test split; if there is none, every split
        but `train`; if there is no other, `train`. A file is predicted whole.
      average: for a run, of how many of the newest checkpoints to take the mean.

    Returns:
      Lines that report what was written, and the metrics if the examples have labels.

    Raises:
      FileNotFoundError: if the model or the examples are missing.
      ValueError: if the model is not fine-tuned, or the examples do not fit it.
    """
    model = load(checkpoint, average=average)
    task, validation = model.task, model.validation
    data = read_task(task.config.name, source, to_predict=True)
    # Prepares all splits before the first is written, so that an error leaves nothing behind.
    chosen = {
        name: _relabelled(task, data, name, source) for name in _chosen(list(data.splits), split)
    }
    said = list(data.notes)
    if _are_numbers(data.labels, task.labels):
        named = ", ".join(f"{i} {label}" for i, label in enumerate(task.labels))
        said.append(f"{source}: its labels are read as numbers of the model's classes: {named}")
    for name, examples in chosen.items():
        outputs, features = model.run(examples)
        notes = [f"{name}: {count:,} {what}" for what, count in features.notes.items() if count]
        scores = {}
        if task.has_labels(examples):
            scores = task.score(outputs, features, examples, validation)
        task.write(output, name, examples, outputs, features, validation)
        said += [f"{output}: {name}, {len(examples):,} examples", *notes]
        said += [json.dumps(scores)] if scores else []
        said += task.explained(examples) if scores else []
    return said


def _chosen(splits: list[str], split: str | None) -> list[str]:
    """Returns the splits to predict."""
    if split is not None:
        if split not in splits:
            raise ValueError(f"--split {split!r} must be one of {', '.join(splits)}")
        return [split]
    tests = [name for name in splits if name.startswith("test")]
    return tests or [name for name in splits if name != "train"] or splits


def _are_numbers(theirs: Sequence[str], ours: Sequence[str]) -> bool:
    """Whether a file has numbers for classes to which the model gives names."""
    return bool(theirs) and not set(theirs) & set(ours) and all(map(str.isdecimal, theirs))


def _relabelled(task: FinetuningTask, data: TaskData, split: str, source: str) -> Sequence[Any]:
    """Returns the examples with classes numbered as in the model."""
    examples, theirs, ours = data.splits[split], data.labels, task.labels
    if not theirs or tuple(theirs) == ours or not task.has_labels(examples):
        return examples
    places = {label: i for i, label in enumerate(ours)}
    if _are_numbers(theirs, ours):
        places = {str(i): i for i in range(len(ours))}

    def number(k: int) -> int:
        if theirs[k] not in places:
            raise ValueError(
                f"{source}: the model has no class {theirs[k]!r}, only {', '.join(ours)}; rename "
                "it, or drop the column of labels"
            )
        return places[theirs[k]]

    return task.relabelled(examples, number)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.predict",
        description="Writes a fine-tuned model's predictions, in the format of leaderboards if "
        "there is one. Examples need no labels; if they have some, metrics are printed.",
        epilog="A file is predicted whole, whatever its name: TSV, CSV, JSON or Parquet with the "
        "columns text and, if there is a second text, pair; SQuAD's JSON; words one per line; "
        "sentences to translate, one per line. Ids and other columns of a table are kept.",
    )
    parser.add_argument(
        "--checkpoint", required=True, help="a run directory, another model directory, or hf:NAME"
    )
    parser.add_argument("--input", required=True, help="a directory, a file, or tfds:NAME")
    parser.add_argument(
        "--output", required=True, type=user_path, help="the directory to write to"
    )
    parser.add_argument("--split", help="one split (default: test, or else what exists)")
    parser.add_argument("--average", type=int, default=1, help=AVERAGE)
    args = parser.parse_args(argv)
    try:
        said = predict(args.checkpoint, args.input, args.output, args.split, args.average)
        print(*said, sep="\n")
    except USER_ERRORS as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
