"""The command `python -m albert_jax.predict.ask`: answers from a collection of documents."""

import argparse
import json
import sys
from collections.abc import Sequence

from albert_jax.checkpoints.read import AVERAGE
from albert_jax.config.errors import USER_ERRORS, fail
from albert_jax.predict.load import load
from albert_jax.predict.retrieval.collection import (
    CollectionAnswer,
    evaluate_collection,
    open_collection,
)
from albert_jax.tasks.examples import QuestionExample
from albert_jax.tasks.readers.questions import read_questions


def _print(example: QuestionExample, answers: Sequence[CollectionAnswer]) -> None:
    for answer in answers:
        line = {"id": example.id, "question": example.question} | answer._asdict()
        print(json.dumps(line, ensure_ascii=False), flush=True)


def ask(args: argparse.Namespace) -> None:
    """Prints the answers to the questions of the arguments, and metrics if they are known.

    Raises:
      FileNotFoundError: if the model, the index or the questions are missing.
      ValueError: if one of them is not valid.
    """
    if args.input:
        examples = read_questions(args.input)
    else:
        examples = [QuestionExample("0", "", "", args.question, ())]
    embedder = load(args.embedder) if args.embedder else None
    model = load(args.checkpoint, average=args.average)
    collection = open_collection(args.index, model, embedder)
    metrics = evaluate_collection(
        collection,
        examples,
        args.top_k,
        args.passages,
        args.retrieval_weight,
        args.null_threshold,
        _print,
    )
    if any(example.answers for example in examples):
        print(json.dumps(metrics))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m albert_jax.predict.ask",
        description="Answers questions from a collection of documents: finds passages, reads "
        "them, and prints answers, one JSON object per line.",
        epilog='No answer is "". Where questions have gold answers, the last line is exact match, '
        "F1, and recall of the passages (contains@, gold@).",
    )
    parser.add_argument(
        "--checkpoint", required=True, help="a model fine-tuned for question answering"
    )
    parser.add_argument(
        "--index", required=True, help="a folder that albert-jax predict.index made"
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--question", help="one question")
    asked.add_argument("--input", help="a file of questions, one per line, or SQuAD's JSON")
    parser.add_argument("--top_k", type=int, default=5, help="answers to each (default: 5)")
    parser.add_argument("--passages", type=int, default=20, help="passages to read (default: 20)")
    parser.add_argument(
        "--embedder", help="the model that made the index's vectors, if it has moved"
    )
    parser.add_argument(
        "--retrieval_weight",
        type=float,
        default=0.0,
        help="what an answer loses per point that its passage is behind the best (default: 0)",
    )
    parser.add_argument(
        "--null_threshold",
        type=float,
        default=0.0,
        help="log odds of no answer above which there is none; measured with --input, it is "
        "printed with the metrics (default: 0)",
    )
    parser.add_argument("--average", type=int, default=1, help=AVERAGE)
    try:
        ask(parser.parse_args(argv))
    except USER_ERRORS as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
