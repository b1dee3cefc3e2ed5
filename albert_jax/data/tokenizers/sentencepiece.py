"""SentencePiece vocabularies: Unigram, as ALBERT's own, and BPE, with or without bytes.

A piece that ends in digit and comma is encoded again without its comma, so that "9,000" and
"in 9, she" share their number pieces.
"""

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece as spm

from albert_jax.data.scripts import is_within_word
from albert_jax.data.tokenizers.base import SpecialIds, Tokenizer
from albert_jax.data.tokenizers.rules import normalize, normalize_with_offsets
from albert_jax.data.tokenizers.vocabulary import SPECIAL, Vocabulary

WORD_MARK = "▁"  # SentencePiece's stand-in for the space before a word
# Source: google-research/albert README, section "SentencePiece".
USER_DEFINED_SYMBOLS = ("(", ")", '"', "-", ".", "–", "£", "€")

# A normalised text that every trained or loaded vocabulary must encode and decode unchanged.
PROBE = "the cat sat on a mat ."


class SentencePiece(Tokenizer):
    """A SentencePiece model with ALBERT's special pieces and rules."""

    def __init__(self, path: Path, vocabulary: Vocabulary):
        """Loads and checks a model.

        Args:
          path: where it came from, for messages.
          vocabulary: the model and its rules.

        Raises:
          ValueError: if it is not a SentencePiece model, or lacks a special piece.
        """
        self.path, self.vocabulary, self._rules = path, vocabulary, vocabulary.rules
        self._sp = spm.SentencePieceProcessor()
        try:
            self._sp.LoadFromSerializedProto(vocabulary.contents)
        except RuntimeError:
            raise ValueError(f"tokenizer {self.path}: not a SentencePiece model") from None
        self.vocab_size = self._sp.GetPieceSize()
        self.special = self._find_special()
        self._check()
        # Ids of pieces that end in digit and comma -> the ids that ALBERT replaces them with.
        self._comma_rule = {
            i: self._without_comma(piece)
            for i, piece in enumerate(self.spellings)
            if len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()
        }
        self._has_comma_rule = np.zeros(self.vocab_size, bool)
        self._has_comma_rule[list(self._comma_rule)] = True

    def _find_special(self) -> SpecialIds:
        pad, unk, *others = SPECIAL["sentencepiece"]
        lacking = [
            piece for piece in (pad, *others) if self._sp.PieceToId(piece) == self._sp.unk_id()
        ]
        if lacking:
            raise ValueError(
                f"tokenizer {self.path}: has no piece {', '.join(lacking)}; ALBERT needs "
                f"{', '.join((pad, unk, *others))}; train a model with prepare --vocab_size"
            )
        cls, sep, mask = map(self._sp.PieceToId, others)
        return SpecialIds(self._sp.PieceToId(pad), self._sp.unk_id(), cls, sep, mask)

    def _check(self) -> None:
        ids = self._sp.encode(PROBE)
        if self.special.unk not in ids and self._sp.decode(ids) != PROBE:
            raise ValueError(
                f"tokenizer {self.path}: does not decode {PROBE!r} to itself; use another model"
            )

    def _without_comma(self, piece: str) -> list[int]:
        pieces = self._sp.encode(piece[:-1].replace(WORD_MARK, ""), out_type=str)
        if not piece.startswith(WORD_MARK) and pieces[0].startswith(WORD_MARK):
            pieces[:1] = [pieces[0][1:]] if len(pieces[0]) > 1 else []
        return [self._sp.PieceToId(p) for p in [*pieces, ","]]

    @property
    def is_unigram(self) -> bool:
        """Whether it is a Unigram model without byte fallback, the only kind ALBERT has.

        A Unigram model's scores are log-probabilities, a BPE model's the whole numbers 0, -1, ….
        """
        ids = np.flatnonzero(self.is_text).tolist()
        has_bytes = any(self._sp.IsByte(i) for i in ids)
        return not has_bytes and not all(self._sp.GetScore(i).is_integer() for i in ids)

    @cached_property
    def spellings(self) -> list[str]:
        """The pieces as the vocabulary spells them, by id."""
        return [self._sp.IdToPiece(i) for i in range(self.vocab_size)]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes many texts into one array; see `Tokenizer.encode_flat`."""
        encoded = self._sp.encode([normalize(t, self._rules) for t in texts], num_threads=1)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.fromiter(itertools.chain.from_iterable(encoded), self.dtype, int(lengths.sum()))
        hits = np.flatnonzero(self._has_comma_rule[ids])
        if not len(hits):
            return ids, lengths
        owner = np.searchsorted(np.cumsum(lengths), hits, side="right")
        parts, at = [], 0
        for hit, text in zip(hits.tolist(), owner.tolist(), strict=True):
            new = self._comma_rule[int(ids[hit])]
            parts += [ids[at:hit], np.asarray(new, self.dtype)]
            lengths[text] += len(new) - 1
            at = hit + 1
        return np.concatenate([*parts, ids[at:]]), lengths

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encodes one text, with offsets; see `Tokenizer.encode_with_offsets`."""
        plain, origins = normalize_with_offsets(text, self._rules)
        seen, inner = self._sp.normalize(plain, with_offsets=True)
        source = [origins[i] for i in inner[: len(seen)]] + [origins[-1]]
        ids, offsets, at = [], [], 0
        for piece, i in self._surfaces(plain):
            end = at + len(piece)
            first = at + (piece.startswith(WORD_MARK) and len(piece) > 1)
            # SentencePiece's mark before the first word does not stand for a character.
            added = end == 1 and piece == WORD_MARK
            stop = source[at] if added else max(source[end], source[end - 1] + 1)
            ids.append(i)
            offsets.append((source[first], stop))
            at = end
        return ids, offsets

    def _surfaces(self, plain: str) -> Iterator[tuple[str, int]]:
        """Yields each piece as spelled in the text (including unknown ones) and its id."""
        for piece in self._sp.encode(plain, out_type=str):
            i = self._sp.PieceToId(piece)
            if i in self._comma_rule:
                for j in self._comma_rule[i]:
                    yield self.spellings[j], j
            else:
                yield piece, i

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the normalised text of the pieces; special ids give no text, [UNK] gives ⁇."""
        return self._sp.decode([int(i) for i in ids])

    def surface(self, i: int) -> str:
        """Returns the text of one piece, without the mark before a word."""
        return self.spellings[i].removeprefix(WORD_MARK)

    def has_space_before(self, i: int) -> bool:
        """Returns whether a space stands before a piece where it does not begin a text."""
        return self.spellings[i].startswith(WORD_MARK)

    @cached_property
    def word_starts(self) -> np.ndarray:
        """bool[vocab_size], True where a piece begins a word (for whole-word masking).

        A piece continues a word if it consists of letters and their marks, or begins with a mark:
        in punctuation, digits and scripts written without spaces, every other piece begins a
        word. So do special ids.
        """
        starts = [
            piece.startswith(WORD_MARK)
            or not (is_within_word(piece) or unicodedata.category(piece[0])[0] == "M")
            for piece in self.spellings
        ]
        found = np.array(starts, bool)
        found[list(self.special)] = True
        return found
