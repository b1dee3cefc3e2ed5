"""Text to sentences, in any language."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import sentencex

AUTO = "auto"  # a document's script tells its language
DEFAULT = "en"  # of Latin script, where only people can tell
_MOST_READ = 4000  # characters of a document that tell its script
# The language whose rules serve a script, and the script's letters.
_SCRIPTS = {
    "el": "\u0370-\u03ff",
    "ru": "\u0400-\u052f",
    "hy": "\u0530-\u058f",
    "he": "\u0590-\u05ff",
    "ar": "\u0600-\u06ff\u0750-\u077f",
    "hi": "\u0900-\u097f",
    "bn": "\u0980-\u09ff",
    "pa": "\u0a00-\u0a7f",
    "gu": "\u0a80-\u0aff",
    "or": "\u0b00-\u0b7f",
    "ta": "\u0b80-\u0bff",
    "te": "\u0c00-\u0c7f",
    "kn": "\u0c80-\u0cff",
    "ml": "\u0d00-\u0d7f",
    "th": "\u0e00-\u0e7f",
    "my": "\u1000-\u109f",
    "ka": "\u10a0-\u10ff",
    "am": "\u1200-\u137f",
    "km": "\u1780-\u17ff",
    "ko": "\u1100-\u11ff\uac00-\ud7af",
    "ja": "\u3040-\u30ff",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff",
}
_LETTERS = {language: re.compile(f"[{letters}]") for language, letters in _SCRIPTS.items()}
_NOT_LATIN = re.compile(f"[{''.join(_SCRIPTS.values())}]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_KANA_SHARE = 0.1  # Japanese has more kana than this among kana and Chinese characters

# The time of `sentencex.segment` grows with the square of the length if not all is ASCII.
_MOST_CHARS = 8000
_SENTENCE_END = re.compile(r"[。！？]+[」』）”’]*|[.!?…।؟۔]+[\"'”’)]*\s")


def check_language(language: str) -> None:
    """Checks the code of a language.

    Raises:
      ValueError: if it is none.
    """
    if language != AUTO and not re.fullmatch("[a-z]{2,3}", language):
        raise ValueError(f"language {language!r}: must be {AUTO} or a code such as en, de or zh")


def language_of(paragraphs: Sequence[str]) -> str:
    """Returns the language that a document's script stands for; "en" for Latin script."""
    if all(map(str.isascii, paragraphs)):
        return DEFAULT
    text = "".join(paragraphs)[:_MOST_READ]
    if not _NOT_LATIN.search(text):
        return DEFAULT
    counts = Counter({name: len(found.findall(text)) for name, found in _LETTERS.items()})
    if counts["ja"] > _KANA_SHARE * (counts["ja"] + counts["zh"]):
        counts["ja"] += counts.pop("zh")
    (language, count), *_ = counts.most_common(1)
    return language if count >= len(_LATIN.findall(text)) else DEFAULT


def split_sentences(paragraphs: Iterable[str], language: str = DEFAULT) -> list[str]:
    """Returns the sentences of all paragraphs in order; only white space is dropped."""
    parts = itertools.chain.from_iterable(map(_bounded, paragraphs))
    found = (sentence for part in parts for sentence in sentencex.segment(language, part))  # pyright: ignore
    return [sentence for text in found if (sentence := text.strip())]


def _bounded(paragraph: str) -> Iterator[str]:
    """Yields the parts of a long paragraph, cut after sentences where possible."""
    at = 0
    while len(paragraph) - at > _MOST_CHARS and not paragraph.isascii():
        window = paragraph[at : at + _MOST_CHARS]
        ends = [match.end() for match in _SENTENCE_END.finditer(window)]
        cut = ends[-1] if ends else window.rfind(" ") + 1 or _MOST_CHARS
        yield window[:cut]
        at += cut
    yield paragraph[at:]
