"""Words of scripts without spaces, by a segmenter, so that whole words can be masked."""

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np

from albert_jax.data.scripts import UNSPACED
from albert_jax.data.tokenizers import Tokenizer

# Text -> its words in order, which together are the text.
Segmenter = Callable[[str], list[str]]

_UNSPACED = re.compile(f"[{UNSPACED}]")


def _jieba() -> Segmenter:
    try:
        import rjieba  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            "segmenter jieba: needs rjieba (pip install rjieba); without a segmenter, each "
            "Chinese character is a word"
        ) from None
    return rjieba.cut


SEGMENTERS: dict[str, Callable[[], Segmenter]] = {"jieba": _jieba}
PACKAGES = {"jieba": "rjieba"}  # whose versions determine the words


def make_segmenter(name: str) -> Segmenter:
    """Returns a segmenter.

    Raises:
      ValueError: if there is no such segmenter, or it is not installed.
    """
    if name not in SEGMENTERS:
        raise ValueError(f"segmenter {name!r}: must be one of {', '.join(SEGMENTERS)}")
    return SEGMENTERS[name]()


def encode_with_words(
    tokenizer: Tokenizer, segmenter: Segmenter, texts: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Encodes texts, and finds where their words begin.

    A piece begins a word if the vocabulary says so, except in scripts without spaces: there it
    has to begin where a word of the segmenter's begins.

    Returns:
      ids and lengths as from `Tokenizer.encode_flat`, and bool[n], True where words begin.
    """
    ids, lengths = tokenizer.encode_flat(texts)
    starts = tokenizer.word_starts[ids]
    at = 0
    for text, length in zip(texts, lengths.tolist(), strict=True):
        if _UNSPACED.search(text):
            begins = {0, *itertools.accumulate(map(len, segmenter(text)))}
            _, offsets = tokenizer.encode_with_offsets(text)
            starts[at : at + length] &= [
                begin in begins or not _UNSPACED.match(text, begin) for begin, _ in offsets
            ]
        at += length
    return ids, lengths, starts
