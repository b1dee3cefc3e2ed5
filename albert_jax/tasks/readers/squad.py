"""Reader of SQuAD's JSON files, versions 1.1 and 2.0, and of Hugging Face's flat layout.

Source: https://rajpurkar.github.io/SQuAD-explorer/: `data` → `paragraphs` → `context`, `qas` →
`id`, `question`, `answers` (`text`, `answer_start`) and, in 2.0, `is_impossible` and
`plausible_answers` (which are not read). In the flat layout, one object per question has `id`,
`context`, `question` and `answers` with two lists, `text` and `answer_start`.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from albert_jax.data.files import parse_json
from albert_jax.data.tfds import WORDS
from albert_jax.tasks.examples import NOT_FOUND, Answer, QuestionExample, TaskData
from albert_jax.tasks.readers.files import find_splits, read_text, split_of_lone
from albert_jax.tasks.readers.records import read_json_rows

VALIDATION_FRACTION = 0.2
NAMES = re.compile(r"(?:cmrc2018_)?(train|dev|validation|test)(?:-v(\d\.\d))?\.json")


def read_squad_task(name: str, source: str, to_predict: bool = False) -> TaskData:
    """Reads a SQuAD task.

    Files named like the official ones (train-v2.0.json, dev-v2.0.json; the version is optional)
    are the splits; those of another version are skipped. If there are none but exactly one JSON
    file of another name, it serves as both: a fifth of its articles become the validation split
    and the rest train (`split_by_article`), and `notes` says so.

    Args:
      name: "squad/v1.1" or "squad/v2.0"; the former must have an answer to every question.
      source: a folder or a file.
      to_predict: whether the questions are to be predicted: none needs answers, and a file is
        read whole, whatever its name.

    Returns:
      The splits whose files exist.

    Raises:
      FileNotFoundError: if the source or all of the files are missing.
      ValueError: if a file is malformed.
    """
    version = name.removeprefix("squad/v")
    notes: list[str] = []

    def split_of_name(file: str) -> str | None:
        match = NAMES.fullmatch(file)
        # A file that is named explicitly is read, whatever version its name has.
        fits = match and (os.path.isfile(source) or match[2] in (version, None))
        return WORDS[match[1]] if match and fits else None

    def read(path: str, split: str) -> list[QuestionExample]:
        answered = not to_predict and split != "test"
        return read_squad(path, notes, to_predict or version == "2.0", answered)

    lone = _lone_file(source, split_of_name)
    if to_predict and (lone or os.path.isfile(source)):
        path = lone or source
        name = split_of_lone(path)
        return TaskData({name: read(path, name)}, (), tuple(notes))
    if lone:
        train, validation = split_by_article(read(lone, "train"))
        notes.append(
            f"{lone}: the name does not show a split; split by article into {len(train)} "
            f"questions to train on and {len(validation)} to validate"
        )
        return TaskData({"train": train, "validation": validation}, (), tuple(notes))
    looked_for = f"train-v{version}.json, dev-v{version}.json, test-v{version}.json"
    files = find_splits(source, split_of_name, looked_for, None)
    splits = {split: read(path, split) for split, path in files.items()}
    return TaskData(splits, (), tuple(notes))


def _lone_file(source: str, split_of_name: Callable[[str], str | None]) -> str | None:
    """Returns the only file, if its name does not show a split."""
    folder = source if os.path.isdir(source) else os.path.dirname(source)
    names = os.listdir(source) if os.path.isdir(source) else [os.path.basename(source)]
    if any(map(split_of_name, names)) or not os.path.exists(source):
        return None
    others = sorted(n for n in names if not NAMES.fullmatch(n) and n.endswith(".json"))
    if len(others) > 1:
        listed = ", ".join(others[:5])
        raise ValueError(
            f"{source}: cannot determine the splits ({listed}); name the file to read"
        )
    return os.path.join(folder, others[0]) if others else None


def read_squad(
    path: str,
    notes: list[str] | None = None,
    unanswerable: bool = True,
    answered: bool = True,
) -> list[QuestionExample]:
    """Reads one file.

    An answer that is not at its `answer_start` is moved to the nearest occurrence of its text in
    the context. An answer whose text does not occur there keeps the text, with the start
    `NOT_FOUND`.

    Args:
      path: the file.
      notes: receives a line with the number of each kind of such answers.
      unanswerable: whether a question may be marked `is_impossible`.
      answered: whether every other question must have an answer (not so in a test file).

    Returns:
      All questions in the file's order.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is malformed; the message gives the place in the JSON.
    """
    return questions_of(_articles(path), path, notes, unanswerable, answered)


def _articles(path: str) -> Iterable[tuple[str, Any]]:
    """Yields each article with its place; a question of the flat layout is one by itself."""
    text = read_text(path)
    if _is_question(text.lstrip().partition("\n")[0]):
        for row in read_json_rows(path):
            yield row.where, article_of(row.cells)
        return
    root = parse_json(text, path)
    is_array = isinstance(root, list) and root and "question" in root[0]
    for number, article in enumerate(root if is_array else _field(root, "data", list, path)):
        where = f"{path}: data[{number}]"
        is_question = isinstance(article, dict) and "question" in article
        yield where, article_of(article) if is_question else article


def _is_question(line: str) -> bool:
    """Whether a line is a question of the flat layout."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "question" in value


def article_of(record: Mapping[str, Any]) -> Any:
    """Returns a question of the flat layout as an article of the official one.

    What is not in the flat layout stays as it is, to be refused by name.
    """
    entry = {key: record[key] for key in ("id", "question", "is_impossible") if key in record}
    if "answers" in record:
        entry["answers"] = answers = record["answers"]
        if isinstance(answers, Mapping) and {"text", "answer_start"} <= answers.keys():
            pairs = zip(answers["text"], answers["answer_start"], strict=False)
            entry["answers"] = [{"text": text, "answer_start": start} for text, start in pairs]
            entry.setdefault("is_impossible", not entry["answers"])
    paragraph = {"context": record.get("context"), "qas": [entry]}
    return {"title": record.get("title", ""), "paragraphs": [paragraph]}


def questions_of(
    articles: Iterable[tuple[str, Any]],
    path: str,
    notes: list[str] | None,
    unanswerable: bool,
    answered: bool,
) -> list[QuestionExample]:
    """Returns the questions of articles, given with their places; see `read_squad`."""
    examples: list[QuestionExample] = []
    seen: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for at_article, article in articles:
        paragraphs = _field(article, "paragraphs", list, at_article)
        title = _field(article, "title", str, at_article) if "title" in article else ""
        for p, paragraph in enumerate(paragraphs):
            at_paragraph = f"{at_article}.paragraphs[{p}]"
            context = _field(paragraph, "context", str, at_paragraph)
            if not context.strip():
                raise ValueError(f"{at_paragraph}: the context is empty; drop the paragraph")
            for q, entry in enumerate(_field(paragraph, "qas", list, at_paragraph)):
                where = f"{at_paragraph}.qas[{q}]"
                identity = _identity(entry, where)
                where = f"{where} (question {identity})"
                if seen.setdefault(identity, where) != where:
                    raise ValueError(
                        f"{where}: the id is repeated from {seen[identity]}; drop one"
                    )
                question = _field(entry, "question", str, where)
                counts["empty"] += not question.strip()
                answers = _answers(entry, context, where, unanswerable, answered, counts)
                examples.append(QuestionExample(identity, title, context, question, answers))
    if not examples:
        raise ValueError(f"{path}: data: contains no question; fetch the file again")
    if notes is not None:
        notes += count_lines(path, counts)
    return examples


def _identity(entry: Any, where: str) -> str:
    """Returns a question's id; a whole number is taken as text."""
    value = entry.get("id") if isinstance(entry, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _field(entry, "id", str, where)


def _field(holder: Any, key: str, kind: type, where: str) -> Any:
    """Returns `holder[key]`, which must exist and be of this type."""
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {list: "a list", str: "a string", int: "a whole number", bool: "true or false"}
        raise ValueError(f"{where}: {key!r} must be {words[kind]}; is this SQuAD's layout?")
    return value


def _answers(
    entry: dict,
    context: str,
    where: str,
    unanswerable: bool,
    answered: bool,
    counts: Counter[str],
) -> tuple[Answer, ...]:
    """Returns a question's answers, each checked and aligned."""
    impossible = "is_impossible" in entry and _field(entry, "is_impossible", bool, where)
    if impossible and not unanswerable:
        raise ValueError(f"{where}: is_impossible does not exist in v1.1; use the task squad/v2.0")
    found = []
    if impossible and entry.get("answers"):
        counts["answers of impossible"] += len(entry["answers"])
    elif answered or "answers" in entry:
        for i, answer in enumerate(_field(entry, "answers", list, where)):
            place = f"{where}.answers[{i}]"
            text = _field(answer, "text", str, place)
            start = _field(answer, "answer_start", int, place)
            found.append(align(context, text, start, place, counts))
    if answered and not impossible and not found:
        raise ValueError(
            f"{where}: no answer, but is_impossible is not set; correct one of the two"
        )
    return tuple(found)


def align(context: str, text: str, start: int, where: str, counts: Counter[str]) -> Answer:
    """Returns an answer at its stated start, or at the nearest occurrence of its text.

    Args:
      context: the passage.
      text: the answer.
      start: its stated start.
      where: the place in the file, for messages.
      counts: "moved" or "not found" is incremented if the answer is not at its start.

    Raises:
      ValueError: if the text is empty.
    """
    if not text.strip():
        raise ValueError(f"{where}: the answer's text is empty; drop the answer")
    if start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    # White space around the text may be missing from the context.
    for wanted in (text, text.strip()):
        places = [m.start() for m in re.finditer(f"(?={re.escape(wanted)})", context)]
        if places:
            counts["moved"] += 1
            return Answer(wanted, min(places, key=lambda place: abs(place - start)))
    counts["not found"] += 1
    return Answer(text, NOT_FOUND)


def count_lines(path: str, counts: Counter[str]) -> list[str]:
    """Returns a note for each kind of oddity that `counts` counts."""
    words = {
        "moved": "answers were not at their answer_start; moved to the nearest occurrence",
        "not found": "answers do not occur in their context; they cannot be trained on",
        "empty": "questions have no text; kept them",
        "answers of impossible": "answers of questions with is_impossible were ignored",
    }
    return [f"{path}: {counts[kind]} {text}" for kind, text in words.items() if counts[kind]]


def split_by_article(
    examples: Sequence[QuestionExample], fraction: float = VALIDATION_FRACTION, seed: int = 0
) -> tuple[list[QuestionExample], list[QuestionExample]]:
    """Splits questions so that no article is on both sides.

    Args:
      examples: the questions.
      fraction: the fraction of articles to validate on, rounded, but at least one article.
      seed: selects the articles; the choice is the same on any machine, for all time.

    Returns:
      The questions to train on and those to validate on, each in the given order.

    Raises:
      ValueError: if there is only one article, or the fraction leaves one side empty.
    """
    titles = {_article_name(example) for example in examples}
    count = max(1, round(fraction * len(titles)))
    if not 0 < fraction < 1 or count >= len(titles):
        raise ValueError(
            f"{len(titles)} articles cannot be split with the fraction {fraction}; "
            "give a train and a dev file"
        )
    # Ranked by hash, because random number generators may change between NumPy versions.
    ranked = sorted(titles, key=lambda t: hashlib.sha256(f"{seed}:{t}".encode()).digest())
    chosen = set(ranked[:count])
    return (
        [e for e in examples if _article_name(e) not in chosen],
        [e for e in examples if _article_name(e) in chosen],
    )


def _article_name(example: QuestionExample) -> str:
    return example.title or example.context
