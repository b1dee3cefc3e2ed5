"""What happens to a text before its pieces are looked up: case, accents, spaces, quotes."""

import re
import unicodedata
from dataclasses import dataclass

# No character before U+0300 is a combining one.
MAYBE_COMBINING = re.compile("[\u0300-\U0010ffff]")


@dataclass(frozen=True)
class TextRules:
    """The rules of a tokenizer, by the names of transformers; the defaults are English ALBERT's.

    Attributes:
      do_lower_case: whether capital letters become small ones.
      keep_accents: whether accents, vowel signs and other combining marks stay.
      remove_space: whether white space becomes single spaces; for SentencePiece alone.
      tokenize_chinese_chars: whether each Chinese character is a word; for WordPiece alone.
    """

    do_lower_case: bool = True
    keep_accents: bool = False
    remove_space: bool = True
    tokenize_chinese_chars: bool = True

    def __str__(self) -> str:
        case = "lower-cased" if self.do_lower_case else "with capital letters"
        return f"{case}, {'with' if self.keep_accents else 'without'} accents"


ENGLISH = TextRules()


def _unless_combining(match: re.Match[str]) -> str:
    return "" if unicodedata.combining(match[0]) else match[0]


def normalize(text: str, rules: TextRules = ENGLISH) -> str:
    """Returns `text` as ALBERT reads it; by default: single spaces, no accents, lower case.

    Source: google-research/albert, tokenization.py, `preprocess_text`; the rule for `` and '' is
    only in transformers' tokenization_albert.py.
    """
    if rules.remove_space:
        text = " ".join(text.split())
    text = text.replace("``", '"').replace("''", '"')
    if not rules.keep_accents and not text.isascii():
        text = MAYBE_COMBINING.sub(_unless_combining, unicodedata.normalize("NFKD", text))
    return text.lower() if rules.do_lower_case else text


def count_removed_marks(text: str, rules: TextRules = ENGLISH) -> int:
    """Returns how many accents, vowel signs and other combining marks the rules remove."""
    if rules.keep_accents or text.isascii():
        return 0
    found = MAYBE_COMBINING.findall(unicodedata.normalize("NFKD", text))
    return sum(unicodedata.combining(char) != 0 for char in found)


def normalize_with_offsets(text: str, rules: TextRules = ENGLISH) -> tuple[str, list[int]]:
    """Returns `normalize(text, rules)` and the origin of each of its characters.

    Returns:
      The normalised text of n characters, and n + 1 character offsets into `text`: the start of
      each character's origin, and the end of the text that was read.
    """
    if rules.remove_space:
        kept, origins, end = _with_single_spaces(text)
    else:
        kept, origins, end = list(text), list(range(len(text))), len(text)
    for quote in ("``", "''"):
        kept, origins = _with_plain_quotes(kept, origins, quote)
    if not rules.keep_accents:
        kept, origins = _without_accents(kept, origins)
    plain = "".join(kept)
    if not rules.do_lower_case:
        return plain, [*origins, end]
    # Lower case depends on adjacent characters (final sigma), so it is applied to the whole text.
    lower = plain.lower()
    if len(lower) != len(plain):  # İ becomes two characters
        origins = [at for c, at in zip(kept, origins, strict=True) for _ in c.lower()]
    return lower, [*origins, end]


def _with_single_spaces(text: str) -> tuple[list[str], list[int], int]:
    """Returns the characters left, their origins, and the end of the text that was read."""
    kept, origins, pending_space = [], [], None
    for i, char in enumerate(text):
        if char.isspace():
            pending_space = i if pending_space is None else pending_space
            continue
        if pending_space is not None and kept:
            kept.append(" ")
            origins.append(pending_space)
        pending_space = None
        kept.append(char)
        origins.append(i)
    return kept, origins, len(text) if pending_space is None else pending_space


def _with_plain_quotes(
    chars: list[str], origins: list[int], quote: str
) -> tuple[list[str], list[int]]:
    """Replaces each pair of quotes by one double quote, which starts where the pair does."""
    starts = [match.start() for match in re.finditer(quote, "".join(chars))]
    gone = {at + 1 for at in starts}
    for at in starts:
        chars[at] = '"'
    kept = [i for i in range(len(chars)) if i not in gone]
    return [chars[i] for i in kept], [origins[i] for i in kept]


def _without_accents(chars: list[str], origins: list[int]) -> tuple[list[str], list[int]]:
    """Decomposes each character and drops its combining marks."""
    kept, kept_origins = [], []
    for char, origin in zip(chars, origins, strict=True):
        plain = [c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c)]
        kept += plain
        kept_origins += [origin] * len(plain)
    return kept, kept_origins
