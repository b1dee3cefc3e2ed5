"""Texts that are hard to turn into rows, and what a row says."""

import hypothesis.strategies as st
from support.pieces import CLS, SEP
from support.texts import WORDS

# With letters that become several, accents of both kinds, white space of many kinds, and
# characters that become no piece. The vocabulary has few letters, so there are unknown pieces too.
NO_PIECE = "\u200b\x00\x1f"
LETTERS = "abemornting  \t\n\u00a0éÉﬁ½Ĳ\u0301😀0,9.(" + NO_PIECE
TEXTS = st.one_of(
    st.text(LETTERS, max_size=60), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
)


def contents(row):
    """The pieces of a row's two texts (None for a second that is not there), checked."""
    ids, types = row["input_ids"].tolist(), row["token_type_ids"].tolist()
    assert row["attention_mask"].tolist() == [1] * len(ids)
    assert len(types) == len(ids)
    assert ids[0] == CLS
    assert ids[-1] == SEP
    first = types.index(1) if 1 in types else len(ids)
    assert types == [0] * first + [1] * (len(ids) - first)
    assert ids[first - 1] == SEP
    return ids[1 : first - 1], ids[first:-1] if first < len(ids) else None
