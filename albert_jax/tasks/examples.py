"""Fine-tuning examples as every reader returns them: plain text, no token ids or arrays."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# The start of an answer whose text does not occur in its context.
NOT_FOUND = -1


class TextExample(NamedTuple):
    """One text or pair of texts with a class or a score: GLUE and your own tables.

    Attributes:
      id: the id used in submission files; GLUE: the row's index.
      text: the first text.
      pair: the second text, or None if the task has only one.
      label: index into the labels, or the score; None if the file has none (test).
      columns: column -> cell, what else the row has; kept beside the prediction.
    """

    id: str
    text: str
    pair: str | None
    label: int | float | None
    columns: Mapping[str, str] = {}


class ChoiceExample(NamedTuple):
    """One multiple-choice question: RACE.

    Attributes:
      id: the passage's id, a hyphen and the question's number in the passage, from 0.
      context: the passage.
      question: a question, or a sentence with a gap "_" that the option fills.
      options: the options to choose from.
      label: index into the options; None if the file has none (test).
    """

    id: str
    context: str
    question: str
    options: tuple[str, ...]
    label: int | None


class Answer(NamedTuple):
    """One correct answer.

    Attributes:
      text: the answer; `context[start : start + len(text)]` unless the start is `NOT_FOUND`.
      start: its first character in the context, or `NOT_FOUND`: such an answer still counts
        when answers are compared, but its position cannot be learned.
    """

    text: str
    start: int


class QuestionExample(NamedTuple):
    """One question about a passage: SQuAD.

    Attributes:
      id: the question's id.
      title: the article's title.
      context: the passage.
      question: the question.
      answers: correct answers; empty if the question is unanswerable (or in a test file).
    """

    id: str
    title: str
    context: str
    question: str
    answers: tuple[Answer, ...]


class TaggedExample(NamedTuple):
    """One sentence with a tag for each word: named entities.

    Attributes:
      id: the sentence's index in its file.
      words: the words.
      tags: indices into the labels, one per word; None if the file has none (test).
    """

    id: str
    words: tuple[str, ...]
    tags: tuple[int, ...] | None


class PairExample(NamedTuple):
    """One sentence and its translation.

    Attributes:
      id: the line's number in its file, from 0.
      source: the sentence.
      target: its translation; None if the file has none (test).
    """

    id: str
    source: str
    target: str | None


class TaskData(NamedTuple):
    """All of a task's examples.

    Attributes:
      splits: the examples of "train", "validation" ("validation_matched" and
        "validation_mismatched" for MNLI) and "test"; only those that exist, in this order.
      labels: the names of the classes, or IOB2 tags with "O" first; () for regression, choices
        and questions.
      notes: the reader's decisions, one line each, to be shown to the user.
    """

    splits: dict[str, list[Any]]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()


def compared_values(example: Any) -> Any:
    """Returns what makes examples the same: all fields but the other columns of a table."""
    return example[:-1] if isinstance(example, TextExample) else example


# Names of classes and fields from the time when the digest of a run's examples included them.
_EARLIER_NAMES = {
    TextExample: ("TextExample", "id", "text", "pair", "label"),
    ChoiceExample: ("ChoiceExample", "id", "context", "question", "options", "label"),
    Answer: ("Answer", "text", "start"),
    QuestionExample: ("QuestionExample", "id", "title", "context", "question", "answers"),
    TaggedExample: ("TaggedExample", "id", "words", "tags"),
}


def earlier_repr(value: Any) -> str:
    """Returns the `repr` of an example as of November 2026, regardless of later renamings."""
    if type(value) in _EARLIER_NAMES:
        name, *fields = _EARLIER_NAMES[type(value)]
        pairs = zip(fields, value, strict=False)  # fields added later were not shown
        return f"{name}({', '.join(f'{field}={earlier_repr(part)}' for field, part in pairs)})"
    if type(value) is tuple:
        return f"({', '.join(map(earlier_repr, value))}{',' if len(value) == 1 else ''})"
    if type(value) is list:
        return f"[{', '.join(map(earlier_repr, value))}]"
    return repr(value)
