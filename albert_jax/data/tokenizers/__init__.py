"""Text to piece ids and back: SentencePiece and WordPiece behind one interface."""

import os
from pathlib import Path

from albert_jax.data.tokenizers.base import PieceTable, SpecialIds, Tokenizer, id_dtype
from albert_jax.data.tokenizers.rules import ENGLISH, TextRules
from albert_jax.data.tokenizers.sentencepiece import SentencePiece
from albert_jax.data.tokenizers.vocabulary import Vocabulary, read_vocabulary, vocabulary_in
from albert_jax.data.tokenizers.wordpiece import WordPiece

__all__ = [
    "ENGLISH",
    "PieceTable",
    "SpecialIds",
    "TextRules",
    "Tokenizer",
    "Vocabulary",
    "id_dtype",
    "load_tokenizer",
    "read_vocabulary",
    "tokenizer_of",
    "vocabulary_in",
]
_KINDS = {"sentencepiece": SentencePiece, "wordpiece": WordPiece}


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Loads a vocabulary and the rules beside it.

    Args:
      path: a SentencePiece `.model` file, a WordPiece `vocab.txt`, or a folder of rows, of a run
        or of Hugging Face's with either.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a vocabulary, or lacks a special piece.
    """
    path = Path(path)
    return tokenizer_of(read_vocabulary(path), vocabulary_in(path) or path)


def tokenizer_of(vocabulary: Vocabulary, source: str | os.PathLike) -> Tokenizer:
    """Returns the tokenizer of a vocabulary; `source` says where it came from, for messages.

    Raises:
      ValueError: if it is damaged, or lacks a special piece.
    """
    return _KINDS[vocabulary.kind](Path(source), vocabulary)
