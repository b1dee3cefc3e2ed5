"""The special ids of the vocabularies made for tests, which are those of English ALBERT."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from albert_jax.data.tokenizers import PieceTable, SpecialIds, Vocabulary
from albert_jax.prepare.vocabulary import train_sentencepiece

SPECIAL = SpecialIds(0, 1, 2, 3, 4)
PAD, UNK, CLS, SEP, MASK = SPECIAL
NUM_SPECIAL = 5


def table_of(word_starts: np.ndarray) -> PieceTable:
    """What masking knows of pieces that begin words at `word_starts`."""
    ids = np.arange(len(word_starts))
    return PieceTable(SPECIAL, word_starts, ids[NUM_SPECIAL:], ids >= NUM_SPECIAL)


def train_tokenizer(texts: Iterable[str], path: Path, vocab_size: int) -> None:
    """Writes a SentencePiece model of English ALBERT's rules."""
    Path(path).write_bytes(train_sentencepiece(texts, vocab_size))


def english(model: bytes) -> Vocabulary:
    """A SentencePiece model with English ALBERT's rules."""
    return Vocabulary("sentencepiece", model)
