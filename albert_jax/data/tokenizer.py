"""Text to piece ids and back, with ALBERT's normalisation and SentencePiece vocabulary.

Text is normalised (spaces collapsed, accents stripped, lower case) before SentencePiece encodes
it. A piece that ends in digit and comma is encoded again without its comma, so that "9,000" and
"in 9, she" share their number pieces.
"""

import hashlib
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import sentencepiece as spm

from albert_jax.data.scripts import is_within_word

PAD, UNK, CLS, SEP, MASK = 0, 1, 2, 3, 4
NUM_SPECIAL = 5
MAX_VOCAB_SIZE = 65_535  # piece ids are stored as uint16

WORD_MARK = "▁"  # SentencePiece's stand-in for the space before a word
CONTROL_SYMBOLS = ("[CLS]", "[SEP]", "[MASK]")
# Source: google-research/albert README, section "SentencePiece".
USER_DEFINED_SYMBOLS = ("(", ")", '"', "-", ".", "–", "£", "€")

# A normalised text that every trained or loaded vocabulary must encode and decode unchanged.
PROBE = "the cat sat on a mat ."

# No character before U+0300 is a combining one.
MAYBE_COMBINING = re.compile("[\u0300-\U0010ffff]")


def _unless_combining(match: re.Match[str]) -> str:
    return "" if unicodedata.combining(match[0]) else match[0]


def normalize(text: str) -> str:
    """Returns `text` as ALBERT reads it: single spaces, plain quotes, no accents, lower case.

    Source: google-research/albert, tokenization.py, `preprocess_text`; the rule for `` and '' is
    only in transformers' tokenization_albert.py.
    """
    text = " ".join(text.split()).replace("``", '"').replace("''", '"')
    if not text.isascii():
        text = MAYBE_COMBINING.sub(_unless_combining, unicodedata.normalize("NFKD", text))
    return text.lower()


def count_removed_marks(text: str) -> int:
    """Returns how many accents, vowel signs and other combining marks `normalize` removes."""
    if text.isascii():
        return 0
    found = MAYBE_COMBINING.findall(unicodedata.normalize("NFKD", text))
    return sum(unicodedata.combining(char) != 0 for char in found)


def normalize_with_offsets(text: str) -> tuple[str, list[int]]:
    """Returns `normalize(text)` and the origin of each of its characters.

    Returns:
      The normalised text of n characters, and n + 1 character offsets into `text`: the start of
      each character's origin, and the end of the text that was read.
    """
    collapsed, origins, pending_space = [], [], None
    for i, char in enumerate(text):
        if char.isspace():
            pending_space = i if pending_space is None else pending_space
            continue
        if pending_space is not None and collapsed:
            collapsed.append(" ")
            origins.append(pending_space)
        pending_space = None
        collapsed.append(char)
        origins.append(i)
    end = len(text) if pending_space is None else pending_space
    for quote in ("``", "''"):
        collapsed, origins = _with_plain_quotes(collapsed, origins, quote)
    chars, offsets = [], []
    for char, origin in zip(collapsed, origins, strict=True):
        plain = [c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c)]
        chars += plain
        offsets += [origin] * len(plain)
    # Lower case depends on adjacent characters (final sigma), so it is applied to the whole text.
    return "".join(chars).lower(), [*offsets, end]


def _with_plain_quotes(
    chars: list[str], origins: list[int], quote: str
) -> tuple[list[str], list[int]]:
    """Replaces each pair of quotes by one double quote, which starts where the pair does."""
    starts = [match.start() for match in re.finditer(quote, "".join(chars))]
    gone = {at + 1 for at in starts}
    for at in starts:
        chars[at] = '"'
    kept = [i for i in range(len(chars)) if i not in gone]
    return [chars[i] for i in kept], [origins[i] for i in kept]


class Tokenizer:
    """A SentencePiece model with ALBERT's ids and text rules.

    Attributes:
      path: the model file.
      proto: its bytes.
      vocab_size: the number of pieces, special ones included.
      sha256: hex digest of the model file.
    """

    def __init__(self, model_file: str | os.PathLike, proto: bytes | None = None):
        """Loads and checks a model.

        Args:
          model_file: a SentencePiece `.model` file.
          proto: the file's bytes, if already loaded; the file is then not read.

        Raises:
          FileNotFoundError: if there is no such file.
          ValueError: if it is not a SentencePiece model, or does not have ALBERT's ids.
        """
        self.path = Path(model_file)
        if proto is None:
            if not self.path.is_file():
                raise FileNotFoundError(f"tokenizer {self.path}: no such file; pass a .model file")
            proto = self.path.read_bytes()
        self.proto = proto
        self.sha256 = hashlib.sha256(proto).hexdigest()
        self._sp = spm.SentencePieceProcessor()
        try:
            self._sp.LoadFromSerializedProto(proto)
        except RuntimeError:
            raise ValueError(f"tokenizer {self.path}: not a SentencePiece model") from None
        self.vocab_size: int = self._sp.GetPieceSize()
        self._check()
        # Ids of pieces that end in digit and comma -> the ids that ALBERT replaces them with.
        self._comma_rule = {
            i: self._without_comma(piece)
            for i, piece in enumerate(self._vocabulary)
            if i >= NUM_SPECIAL and len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()
        }
        self._has_comma_rule = np.zeros(self.vocab_size, bool)
        self._has_comma_rule[list(self._comma_rule)] = True

    def _check(self) -> None:
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise ValueError(
                f"tokenizer {self.path}: {self.vocab_size} pieces do not fit uint16; "
                f"use a vocabulary of at most {MAX_VOCAB_SIZE}"
            )
        special = [self._sp.PieceToId(s) for s in CONTROL_SYMBOLS]
        found = (self._sp.pad_id(), self._sp.unk_id(), *special)
        if found != (PAD, UNK, CLS, SEP, MASK):
            raise ValueError(
                f"tokenizer {self.path}: pad, unk, [CLS], [SEP], [MASK] have ids {found}, not "
                f"{(PAD, UNK, CLS, SEP, MASK)}; train a model with prepare --vocab_size"
            )
        ids = self._sp.encode(PROBE)
        if UNK not in ids and self._sp.decode(ids) != PROBE:
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
        ids = range(NUM_SPECIAL, self.vocab_size)
        has_bytes = any(self._sp.IsByte(i) for i in ids)
        return not has_bytes and not all(self._sp.GetScore(i).is_integer() for i in ids)

    @cached_property
    def _vocabulary(self) -> list[str]:
        return [self._sp.IdToPiece(i) for i in range(self.vocab_size)]

    def encode(self, text: str) -> list[int]:
        """Returns the piece ids of one text, without [CLS] and [SEP]."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the piece ids of each text, without [CLS] and [SEP]."""
        ids, lengths = self.encode_flat(texts)
        flat, ends = ids.tolist(), np.cumsum(lengths).tolist()
        return [flat[a:b] for a, b in itertools.pairwise([0, *ends])]

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes many texts into one array; the fast path.

        Args:
          texts: any number of texts; each is normalised.

        Returns:
          ids: uint16[n], the concatenated pieces of all texts.
          lengths: int64[len(texts)], pieces per text.
        """
        encoded = self._sp.encode([normalize(t) for t in texts], num_threads=1)
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        ids = np.fromiter(itertools.chain.from_iterable(encoded), np.uint16, int(lengths.sum()))
        hits = np.flatnonzero(self._has_comma_rule[ids])
        if not len(hits):
            return ids, lengths
        owner = np.searchsorted(np.cumsum(lengths), hits, side="right")
        parts, at = [], 0
        for hit, text in zip(hits.tolist(), owner.tolist(), strict=True):
            new = self._comma_rule[int(ids[hit])]
            parts += [ids[at:hit], np.asarray(new, np.uint16)]
            lengths[text] += len(new) - 1
            at = hit + 1
        return np.concatenate([*parts, ids[at:]]), lengths

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encodes one text and returns the characters that each piece stands for.

        Args:
          text: the original text; it need not be normalised.

        Returns:
          ids: the same as `encode(text)`.
          offsets: per piece (start, end) in the original `text`, without the space before a word.
            Pieces of one original character (a ligature) share its range.
        """
        plain, origins = normalize_with_offsets(text)
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
                    yield self._vocabulary[j], j
            else:
                yield piece, i

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the normalised text of the pieces; special ids give no text, [UNK] gives ⁇."""
        return self._sp.decode([int(i) for i in ids])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Returns the pieces as the vocabulary spells them."""
        return [self._vocabulary[int(i)] for i in ids]

    @cached_property
    def word_starts(self) -> np.ndarray:
        """bool[vocab_size], True where a piece begins a word (for whole-word masking).

        A piece continues a word only if it consists of letters and their marks: in punctuation,
        digits and scripts written without spaces, every piece begins a word. So do special ids.
        """
        starts = [p.startswith(WORD_MARK) or not is_within_word(p) for p in self._vocabulary]
        starts[:NUM_SPECIAL] = [True] * NUM_SPECIAL
        return np.array(starts, bool)
