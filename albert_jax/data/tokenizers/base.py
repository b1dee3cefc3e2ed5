"""What every tokenizer offers, whatever its kind of vocabulary."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_jax.data.tokenizers.rules import count_removed_marks
from albert_jax.data.tokenizers.vocabulary import Vocabulary


class SpecialIds(NamedTuple):
    """The ids of the special pieces in a vocabulary."""

    pad: int
    unk: int
    cls: int
    sep: int
    mask: int


class PieceTable(NamedTuple):
    """What masking needs to know of each of V pieces.

    Attributes:
      special: the ids of the special pieces.
      word_starts: bool[V], True where a piece begins a word.
      text_ids: int64[n], the ids of pieces of text, ascending: those that are drawn at random.
      is_text: bool[V], True at these.
    """

    special: SpecialIds
    word_starts: np.ndarray
    text_ids: np.ndarray
    is_text: np.ndarray


class Tokenizer(ABC):
    """Text to piece ids and back.

    Attributes:
      path: where the vocabulary came from, for messages.
      vocabulary: its contents and rules.
      special: the ids of its special pieces.
      vocab_size: the number of pieces, special ones included.
    """

    path: Path
    vocabulary: Vocabulary
    special: SpecialIds
    vocab_size: int

    @property
    def sha256(self) -> str:
        """Hex digest of what determines the ids of a text."""
        return self.vocabulary.sha256

    @property
    @abstractmethod
    def spellings(self) -> list[str]:
        """The pieces as the vocabulary spells them, by id."""

    @abstractmethod
    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes many texts into one array; the fast path.

        Args:
          texts: any number of texts; each is normalised.

        Returns:
          ids: uint16[n] or uint32[n], by the size of the vocabulary; the pieces of all texts.
          lengths: int64[len(texts)], pieces per text.
        """

    @abstractmethod
    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encodes one text and returns the characters that each piece stands for.

        Args:
          text: the original text; it need not be normalised.

        Returns:
          ids: the same as `encode(text)`.
          offsets: per piece (start, end) in the original `text`, without the space before a word.
            Pieces of one original character (a ligature) share its range.
        """

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """Returns the normalised text of the pieces; special ids give no text, [UNK] gives ⁇."""

    @abstractmethod
    def surface(self, i: int) -> str:
        """Returns the text of one piece, without the vocabulary's marks for words."""

    @abstractmethod
    def has_space_before(self, i: int) -> bool:
        """Returns whether a space stands before a piece where it does not begin a text."""

    @property
    @abstractmethod
    def word_starts(self) -> np.ndarray:
        """bool[vocab_size], True where a piece begins a word (for whole-word masking)."""

    def encode(self, text: str) -> list[int]:
        """Returns the piece ids of one text, without [CLS] and [SEP]."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the piece ids of each text, without [CLS] and [SEP]."""
        ids, lengths = self.encode_flat(texts)
        flat, ends = ids.tolist(), np.cumsum(lengths).tolist()
        return [flat[a:b] for a, b in itertools.pairwise([0, *ends])]

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Returns the pieces as the vocabulary spells them."""
        return [self.spellings[int(i)] for i in ids]

    def count_removed_marks(self, texts: Iterable[str]) -> int:
        """Returns how many combining marks of the texts are removed before encoding."""
        return sum(count_removed_marks(text, self.vocabulary.rules) for text in texts)

    @cached_property
    def dtype(self) -> type[np.unsignedinteger]:
        """The smallest of the types that rows may hold which has room for every id."""
        return id_dtype(self.vocab_size)

    @cached_property
    def is_text(self) -> np.ndarray:
        """bool[vocab_size], True for pieces of text: those that are masked and drawn at random.

        Special pieces are none, nor are the entries that BERT's vocabularies keep free.
        """
        found = np.array([not _is_reserved(piece) for piece in self.spellings], bool)
        found[list(self.special)] = False
        return found

    @cached_property
    def table(self) -> PieceTable:
        """What masking needs to know of the pieces."""
        text_ids = np.flatnonzero(self.is_text)
        return PieceTable(self.special, self.word_starts, text_ids, self.is_text)


def id_dtype(vocab_size: int) -> type[np.unsignedinteger]:
    """Returns the type in which rows hold the ids of a vocabulary."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def _is_reserved(piece: str) -> bool:
    return piece.startswith("[unused") and piece.endswith("]")
