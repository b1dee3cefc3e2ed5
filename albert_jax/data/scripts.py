"""Which characters belong to words, in any script."""

import re
import unicodedata

# Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Balinese, Javanese,
# kana, bopomofo and Han with their punctuation and full-width forms. Korean has spaces.
UNSPACED = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1b00-\u1b7f\ua980-\ua9df"
    "\u3000-\u312f\u31a0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff9f\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"[{UNSPACED}]")
# Zero-width characters inside words of Persian and of Indic scripts.
_JOINERS = "\u200c\u200d"


def is_within_word(text: str) -> bool:
    """Returns whether all characters are letters, or marks on letters, of a script with spaces.

    Combining marks (vowel signs, viramas, points, tones) are no letters by themselves, but part
    of the word that they stand in.
    """
    if _UNSPACED.search(text):
        return False
    return all(c.isalpha() or c in _JOINERS or unicodedata.category(c)[0] == "M" for c in text)
