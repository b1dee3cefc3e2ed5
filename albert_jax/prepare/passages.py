"""Documents to passages: whole sentences of about the same number of words."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from albert_jax.data.scripts import UNSPACED
from albert_jax.prepare.corpus import Document
from albert_jax.prepare.sentences import AUTO, language_of, split_sentences

# A word between spaces, or a character of a script without them. What is longer than any word,
# such as encoded data, counts as several.
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]{{1,64}}")


class Piece(NamedTuple):
    """A sentence, or a part of one: its characters in the document, and its number of words."""

    begin: int
    end: int
    words: int


def text_of(document: Document) -> str:
    """Returns the text of a document, in which passages have their places."""
    return "\n".join(document.paragraphs)


def passages_of(
    document: Document, most_words: int, language: str = AUTO
) -> Iterator[tuple[int, int]]:
    """Yields the first character of each passage in `text_of(document)`, and the one after it.

    A passage is as many whole sentences as `most_words` allows. It begins with the last sentence
    of the one before, if there is room. A sentence of more words is cut between words.

    Args:
      document: the document.
      most_words: the largest number of words, at least 1; a character of a script without spaces
        is a word.
      language: the code of the language whose rules split sentences; "auto" takes that of the
        document's script.
    """
    held: list[Piece] = []
    words = 0
    for piece in _pieces(document, most_words, language):
        if held and words + piece.words > most_words:
            yield held[0].begin, held[-1].end
            held = held[-1:] if held[-1].words + piece.words <= most_words else []
            words = sum(one.words for one in held)
        held.append(piece)
        words += piece.words
    if held:
        yield held[0].begin, held[-1].end


def _pieces(document: Document, most_words: int, language: str) -> Iterator[Piece]:
    """Yields the sentences of a document in order, cut where they have too many words."""
    if language == AUTO:
        language = language_of(document.paragraphs)
    first = 0  # character of the paragraph in the document
    for paragraph in document.paragraphs:
        at = 0
        sentences = (
            [paragraph] if document.is_sentences else split_sentences([paragraph], language)
        )
        for sentence in sentences:
            at = paragraph.index(sentence, at)
            yield from _cut(sentence, first + at, most_words)
            at += len(sentence)
        first += len(paragraph) + 1


def _cut(sentence: str, begin: int, most_words: int) -> Iterator[Piece]:
    """Yields a sentence that begins at a character of the document, in parts if it must be."""
    words = [match.span() for match in _WORD.finditer(sentence)]
    for i in range(0, len(words), most_words):
        part = words[i : i + most_words]
        yield Piece(begin + part[0][0], begin + part[-1][1], len(part))
