"""What goes on with a word, in scripts of all kinds."""

import pytest

from albert_jax.data.scripts import is_within_word


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("ing", True),
        ("ß", True),
        ("e\u0301", True),  # decomposed
        ("ि", True),  # a vowel sign alone
        ("न्त्र", True),
        ("ம்", True),
        ("َ", True),  # an Arabic vowel mark
        ("ָ", True),  # a Hebrew point
        ("می\u200cروم", True),  # with a zero-width non-joiner
        ("한국", True),  # Korean has spaces between words
        ("日", False),
        ("の", False),
        ("ไทย", False),
        ("ខ្មែរ", False),
        ("a日", False),
        ("1", False),
        ("'", False),
        ("a-", False),
    ],
)
def test_letters_and_their_marks_go_on_with_a_word(text: str, inside: bool):
    assert is_within_word(text) == inside
