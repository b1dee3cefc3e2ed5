"""Task examples as rows of ids: pairs cut to length, windows over long contexts, word labels.

A row is a dict of arrays. Those named in `SEQUENCES` run along the pieces (their last axis) and
are padded when rows are put together; the others are one value a row.
"""

import itertools
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from albert_jax.data.tokenizers import SpecialIds, Tokenizer

FeatureRow = dict[str, np.ndarray]

NONE = -1  # for a token that has no tag, does not begin a word, or is not in the context

# Arrays along the tokens, and their values on padding.
SEQUENCES = {
    "input_ids": 0,
    "token_type_ids": 0,
    "attention_mask": 0,
    "tags": NONE,  # the tag of the word that begins at the token
    "words": NONE,  # the number of that word
    "begins": NONE,  # the characters of the context that the token stands for
    "ends": NONE,
    "target_ids": 0,  # of a translation, from [CLS] on
    "target_labels": 0,  # what follows each of them, to [SEP]
    "target_weights": 0,  # 1 for every label
}


class Features(NamedTuple):
    """Rows, the example each belongs to, and counts of what was cut.

    Attributes:
      rows: one or more per example.
      owners: int64[len(rows)], each row's position in the examples.
      notes: counts of inputs that could not be used in full, for the log.
      tokenizer: what made the rows, where outputs must be turned back into text.
    """

    rows: list[FeatureRow]
    owners: np.ndarray
    notes: dict[str, int]
    tokenizer: Tokenizer | None = None


def join(
    special: SpecialIds,
    first: Sequence[int],
    second: Sequence[int],
    max_length: int = sys.maxsize,
) -> tuple[FeatureRow, bool]:
    """Returns `[CLS] first [SEP] second [SEP]` as a row, and whether it was cut to fit.

    The longer of the two loses its last token until both fit. An empty second is left out.

    Raises:
      ValueError: if there is no room for a token of each.
    """
    first, second = list(first), list(second)
    room, least = max_length - (3 if second else 2), bool(first) + bool(second)
    if room < least:
        raise ValueError(
            f"task.max_length={max_length} leaves no room for a token of each text; make it at "
            f"least {max_length - room + least}"
        )
    is_cut = len(first) + len(second) > room
    while len(first) + len(second) > room:
        (first if len(first) > len(second) else second).pop()
    ids = [special.cls, *first, special.sep, *([*second, special.sep] if second else [])]
    types = [0] * (len(first) + 2)
    types += [1] * (len(ids) - len(types))
    row = {"input_ids": ids, "token_type_ids": types, "attention_mask": [1] * len(ids)}
    return {name: np.array(values, np.int32) for name, values in row.items()}, is_cut


def stack(arrays: Sequence[np.ndarray], name: str, width: int | None = None) -> np.ndarray:
    """Stacks arrays of one name; those along the tokens are padded to `width` or the longest."""
    if name not in SEQUENCES:
        return np.stack(arrays)
    longest = max(a.shape[-1] for a in arrays) if width is None else width
    shape = (len(arrays), *arrays[0].shape[:-1], longest)
    stacked = np.full(shape, SEQUENCES[name], arrays[0].dtype)
    for into, array in zip(stacked, arrays, strict=True):
        into[..., : array.shape[-1]] = array
    return stacked


def length_of(row: FeatureRow) -> int:
    """Returns the length of a row in tokens; of a pair of sentences, that of the longer one."""
    return max(row[name].shape[-1] for name in ("input_ids", "target_ids") if name in row)


def total_notes(features: Sequence[Features]) -> dict[str, int]:
    """Returns the sums of the notes, without zeros."""
    names = dict.fromkeys(itertools.chain.from_iterable(f.notes for f in features))
    sums = {name: sum(f.notes.get(name, 0) for f in features) for name in names}
    return {name: count for name, count in sums.items() if count}
