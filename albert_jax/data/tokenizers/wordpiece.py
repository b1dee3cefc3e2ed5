"""WordPiece vocabularies, as BERT and the Chinese ALBERTs have them.

Text is cleaned and parted into words as BERT does it; each word is then spelled by the longest
pieces that fit, of which all but the first begin with ##.
"""

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from albert_jax.data.scripts import UNSPACED
from albert_jax.data.tokenizers.base import SpecialIds, Tokenizer
from albert_jax.data.tokenizers.vocabulary import SPECIAL, Vocabulary

# The library's own threads would compete with the worker processes of `prepare`.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

WITHIN_WORD = "##"
LONGEST_WORD = 100  # characters; longer words are unknown. Source: bert, tokenization.py

_UNSPACED = re.compile(f"[{UNSPACED}]")
_BETWEEN_UNSPACED = re.compile(f"(?<=[{UNSPACED}]) | (?=[{UNSPACED}])")


class WordPiece(Tokenizer):
    """A WordPiece vocabulary with BERT's special pieces and rules."""

    def __init__(self, path: Path, vocabulary: Vocabulary):
        """Loads and checks a vocabulary.

        Args:
          path: where it came from, for messages.
          vocabulary: the lines of `vocab.txt` and the rules.

        Raises:
          ValueError: if it is not such a vocabulary, or lacks a special piece.
        """
        self.path, self.vocabulary = path, vocabulary
        self._spellings = parse_vocabulary(vocabulary.contents, str(path))
        self.vocab_size = len(self._spellings)
        # Of a piece that stands there twice, the last line counts, as in transformers.
        ids = {piece: i for i, piece in enumerate(self._spellings)}
        lacking = [piece for piece in SPECIAL["wordpiece"] if piece not in ids]
        if lacking:
            raise ValueError(
                f"tokenizer {path}: has no line {', '.join(lacking)}; a WordPiece vocabulary has "
                "one piece a line, the special ones among them"
            )
        self.special = SpecialIds(*(ids[piece] for piece in SPECIAL["wordpiece"]))
        self._tokenizer = make_pipeline(ids, vocabulary)

    @property
    def spellings(self) -> list[str]:
        """The pieces as the vocabulary spells them, by id."""
        return self._spellings

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes many texts into one array; see `Tokenizer.encode_flat`."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        encoded = [encoding.ids for encoding in found]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        flat = itertools.chain.from_iterable(encoded)
        return np.fromiter(flat, self.dtype, int(lengths.sum())), lengths

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encodes one text, with offsets; see `Tokenizer.encode_with_offsets`."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the normalised text of the pieces; special ids give no text, [UNK] gives ⁇."""
        silent = {self.special.pad, self.special.cls, self.special.sep, self.special.mask}
        words: list[str] = []
        for i in map(int, ids):
            piece = "⁇" if i == self.special.unk else self._spellings[i]
            if i in silent:
                continue
            if words and piece.startswith(WITHIN_WORD):
                words[-1] += piece.removeprefix(WITHIN_WORD)
            else:
                words.append(piece)
        return _BETWEEN_UNSPACED.sub("", " ".join(words))

    def surface(self, i: int) -> str:
        """Returns the text of one piece, without the mark inside a word."""
        return self._spellings[i].removeprefix(WITHIN_WORD)

    def has_space_before(self, i: int) -> bool:
        """Returns whether a space stands before a piece where it does not begin a text."""
        piece = self._spellings[i]
        return not piece.startswith(WITHIN_WORD) and not _UNSPACED.search(piece)

    @cached_property
    def word_starts(self) -> np.ndarray:
        """bool[vocab_size], True where a piece begins a word: all but those that begin with ##."""
        return np.array([not piece.startswith(WITHIN_WORD) for piece in self._spellings], bool)


def parse_vocabulary(contents: bytes, where: str) -> list[str]:
    """Returns the pieces of a `vocab.txt` by id.

    Raises:
      ValueError: if it is not text.
    """
    try:
        lines = contents.decode("utf-8-sig").removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"tokenizer {where}: not UTF-8 text, unlike a vocab.txt") from None
    return [line.removesuffix("\r") for line in lines]


def make_pipeline(ids: dict[str, int], vocabulary: Vocabulary) -> Any:
    """Returns the library's tokenizer; special pieces in a text are read as text."""
    rules = vocabulary.rules
    pipeline = tokenizers.Tokenizer(
        models.WordPiece(
            ids,
            unk_token=SPECIAL["wordpiece"][1],
            max_input_chars_per_word=LONGEST_WORD,
            continuing_subword_prefix=WITHIN_WORD,
        )
    )
    pipeline.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=rules.tokenize_chinese_chars,
        strip_accents=not rules.keep_accents,
        lowercase=rules.do_lower_case,
    )
    pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return pipeline
