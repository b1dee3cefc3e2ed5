"""Reader of questions alone, or of SQuAD's with what is known of their answers."""

from albert_jax.tasks.examples import QuestionExample
from albert_jax.tasks.readers.files import read_text
from albert_jax.tasks.readers.squad import read_squad


def read_questions(path: str) -> list[QuestionExample]:
    """Reads a file of questions, one per line, or SQuAD's JSON in any layout.

    The id of a line's question is the line's number from 0; its context is empty.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is empty, not UTF-8, or JSON of another layout.
    """
    text = read_text(path)
    if text.lstrip()[0] in "[{":
        return read_squad(path, answered=False)
    lines = enumerate(text.splitlines())
    return [QuestionExample(str(i), "", "", line.strip(), ()) for i, line in lines if line.strip()]
