"""The command `python -m albert_jax.predict`: the files that a leaderboard takes."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.predict.finetuned import FinetunedModel, softmax
from albert_jax.predict.load import load
from albert_jax.tasks.question_answering import text_of
from albert_jax.tasks.registry import read_task
from albert_jax.tasks.squad_metrics import squad_metrics
from albert_jax.tasks.submissions import (
    write_choices,
    write_squad,
    write_tags,
    write_text_predictions,
)


def predict(checkpoint: str, source: str, output: Path, split: str | None = None) -> list[str]:
    """Writes a fine-tuned model's predictions in the official format of its task.

    Args:
      checkpoint: the fine-tuned model, whatever `load` reads.
      source: examples, whatever the task reads: a directory, a file, `tfds:NAME`.
      output: the directory to write into.
      split: one split; by default every test split, or where there is none every other but
        `train`, or where there is nothing else `train`.

    Returns:
      Lines that say what was written, and the metrics where the examples have labels.

    Raises:
      FileNotFoundError: where model or examples are missing.
      ValueError: where the model is not fine-tuned, or the examples do not fit it.
    """
    model = load(checkpoint)
    if model.task is None:
        raise ValueError(f"{checkpoint!r} is for {model.kind}: it was not fine-tuned for a task")
    data = read_task(model.task.config.name, source)
    # All splits before the first is written: an error leaves nothing behind.
    chosen = {
        name: _relabelled(data.splits[name], data.labels, model.labels, source)
        for name in _chosen(list(data.splits), split)
    }
    said = list(data.notes)
    for name, examples in chosen.items():
        outputs, features = model.run(examples)
        metrics = _metrics(model, outputs, features, examples) if _has_labels(examples) else {}
        _WRITERS[model.kind](model, name, examples, outputs, features, output)
        said.append(f"{output}: {name}, {len(examples):,} examples")
        said += [json.dumps(metrics)] if metrics else []
    return said


def _chosen(splits: list[str], split: str | None) -> list[str]:
    if split is not None:
        if split not in splits:
            raise ValueError(f"--split {split!r} is none of {', '.join(splits)}")
        return [split]
    tests = [name for name in splits if name.startswith("test")]
    return tests or [name for name in splits if name != "train"] or splits


def _relabelled(
    examples: Sequence[Any], theirs: Sequence[str], ours: Sequence[str], source: str
) -> list[Any]:
    """Examples whose classes are numbered as the model numbers them."""
    if not theirs or tuple(theirs) == tuple(ours) or not _has_labels(examples):
        return list(examples)
    places = {label: i for i, label in enumerate(ours)}

    def number(k: int) -> int:
        if theirs[k] not in places:
            raise ValueError(f"{source}: the model has no class {theirs[k]!r}, only {list(ours)}")
        return places[theirs[k]]

    if hasattr(examples[0], "tags"):
        return [e._replace(tags=tuple(map(number, e.tags))) for e in examples]
    return [e._replace(label=number(e.label)) for e in examples]


def _has_labels(examples: Sequence[Any]) -> bool:
    first = examples[0]
    if hasattr(first, "answers"):
        return any(example.answers for example in examples)
    return all((e.tags if hasattr(e, "tags") else e.label) is not None for e in examples)


def _metrics(
    model: FinetunedModel, outputs: Any, features: Any, examples: Sequence[Any]
) -> dict[str, float]:
    if not getattr(model.task, "may_be_unanswerable", False):
        return model.task.score(outputs, features, examples)
    # `score` chooses a threshold by these very answers; what is written goes by the model's own.
    found = model.task.predictions(outputs, features, len(examples))
    odds = {e.id: f.null_odds for e, f in zip(examples, found, strict=True)}
    texts = model.task.texts(found, examples, np.inf)
    return squad_metrics(texts, examples, odds, _threshold(model))


def _threshold(model: FinetunedModel) -> float:
    """The null odds above which a question counts as unanswerable."""
    return model.validation.get("null_threshold", 0.0)


def _write_texts(
    model: FinetunedModel,
    split: str,
    examples: Sequence[Any],
    outputs: Any,
    features: Any,
    output: Path,
) -> None:
    found = np.array(model.task.predictions(outputs, features, len(examples)))
    ids = [example.id for example in examples]
    probabilities = None
    if model.labels:
        probabilities = softmax(np.stack([o["logits"] for o in outputs]))
    name = model.task.config.name
    write_text_predictions(name, output, split, ids, found, model.labels, probabilities)


def _write_answers(
    model: FinetunedModel,
    split: str,
    examples: Sequence[Any],
    outputs: Any,
    features: Any,
    output: Path,
) -> None:
    del split  # the official files have one name
    found = model.task.predictions(outputs, features, len(examples))
    nbest = {
        e.id: [{"text": text_of(e, span), "score": span.score} for span in f.spans]
        for e, f in zip(examples, found, strict=True)
    }
    odds = {e.id: f.null_odds for e, f in zip(examples, found, strict=True)}
    texts = model.task.texts(found, examples, _threshold(model))
    write_squad(output, texts, nbest, odds if model.task.may_be_unanswerable else None)


def _write_choices(
    model: FinetunedModel,
    split: str,
    examples: Sequence[Any],
    outputs: Any,
    features: Any,
    output: Path,
) -> None:
    found = np.array(model.task.predictions(outputs, features, len(examples)))
    write_choices(output, split, [example.id for example in examples], found)


def _write_tags(
    model: FinetunedModel,
    split: str,
    examples: Sequence[Any],
    outputs: Any,
    features: Any,
    output: Path,
) -> None:
    found = model.task.predictions(outputs, features, len(examples))
    gold = None
    if _has_labels(examples):
        gold = [[model.labels[tag] for tag in example.tags] for example in examples]
    write_tags(output, split, [example.words for example in examples], found, gold)


_WRITERS = {
    "classification": _write_texts,
    "multiple_choice": _write_choices,
    "question_answering": _write_answers,
    "token_classification": _write_tags,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.predict",
        description="Writes a fine-tuned model's predictions as leaderboards take them.",
    )
    parser.add_argument("--checkpoint", required=True, help="a run, another directory, hf:NAME")
    parser.add_argument("--input", required=True, help="a directory, a file, or tfds:NAME")
    parser.add_argument("--output", required=True, type=Path, help="the directory to write into")
    parser.add_argument("--split", help="one split (default: test, or what there is)")
    args = parser.parse_args(argv)
    try:
        print(*predict(args.checkpoint, args.input, args.output, args.split), sep="\n")
    except USER_ERRORS as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
