"""The ids that others give a text: the original ALBERT code, and rule by rule transformers."""

import functools
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import sentencepiece as spm
from tokenizers import normalizers

from albert_jax.checkpoints.formats.sentencepiece import USER_DEFINED, build_model, parse_model
from albert_jax.data.tokenizers.sentencepiece import WORD_MARK

SPECIAL = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
KINDS = ("special", "space", "mark", "sigma", "unicode", "comma", "piece", "tie")


def has_comma(piece: str) -> bool:
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def original_text(text: str, quotes: bool = True) -> str:
    """What transformers 4's slow tokenizer encodes; without `quotes`, what Google's code does.

    Source: google-research/albert tokenization.py, `preprocess_text`; transformers 4
    models/albert/tokenization_albert.py has one more rule, that for quotes.
    """
    text = " ".join(text.strip().split())
    if quotes:
        text = text.replace("``", '"').replace("''", '"')
    text = unicodedata.normalize("NFKD", text)
    return "".join([c for c in text if not unicodedata.combining(c)]).lower()


def original_ids(sp: spm.SentencePieceProcessor, texts: Sequence[str]) -> Iterator[list[int]]:
    """The ids of texts that `original_text` has gone over.

    Source: the same files, `encode_pieces` and `_tokenize`.
    """

    @functools.cache
    def ids_of(piece: str) -> list[int]:
        if not has_comma(piece):
            return [sp.PieceToId(piece)]
        parts = sp.EncodeAsPieces(piece[:-1].replace(WORD_MARK, ""))
        if piece[0] != WORD_MARK and parts[0][0] == WORD_MARK:
            parts = parts[1:] if len(parts[0]) == 1 else [parts[0][1:], *parts[1:]]
        return [sp.PieceToId(p) for p in [*parts, ","]]

    for pieces in sp.encode(texts, out_type=str):
        yield [i for piece in pieces for i in ids_of(piece)]


def _drop_marks(char: str) -> str:
    plain = unicodedata.normalize("NFKD", char)
    return "".join(c for c in plain if unicodedata.category(c)[0] != "M")


def _drop_combining(char: str) -> str:
    plain = unicodedata.normalize("NFKD", char)
    return "".join(c for c in plain if not unicodedata.combining(c))


class Explainer:
    """Goes from the original's rules for a text to those of transformers, one at a time.

    - special: "[MASK]" and its like, standing in the text, become their ids.
    - space: control characters that Python takes for spaces are dropped.
    - mark: all marks are dropped, also those of combining class 0 (vowel signs, U+FE0F).
    - sigma: letters are lower-cased one by one, so that a final Σ becomes σ.
    - unicode: `tokenizers` has the character tables of another Unicode version; that excuses only
      characters younger than Unicode 3.2, of 2002.
    - comma: a piece like "9," is never chosen, where the original chooses it and then cuts it.
    - piece: "<PAD>" and "<UNK>", lower-cased, are taken for the pieces of these names.
    - tie: another segmentation, as probable to the rounding of the float32 sums.
    """

    def __init__(self, proto: bytes):
        model = parse_model(proto)
        costly = [p._replace(score=p.score - 100 * has_comma(p.text)) for p in model.pieces]
        self.pieces = [p.text for p in model.pieces]
        self.scores = np.array([p.score for p in costly])
        self.plain = spm.SentencePieceProcessor(model_proto=proto)
        self.costly = spm.SentencePieceProcessor(
            model_proto=build_model(model._replace(pieces=costly))
        )
        spelled = [costly[0]._replace(kind=USER_DEFINED), *costly[1:]]
        self.spelled = spm.SentencePieceProcessor(
            model_proto=build_model(model._replace(pieces=spelled))
        )
        self.rust = normalizers.Sequence(
            [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
        ).normalize_str

    def kinds(self, text: str, found: list[int]) -> list[str]:
        """The kinds that lead from the original's ids to `found`; 'unexplained' if none do."""
        needed, stretches = [], self._stretches(text, ())
        ids = [i for s in stretches for i in self._encode(s, ())]
        for n, kind in enumerate(KINDS[:-1], 1):
            rules = KINDS[:n]
            last_stretches, stretches = stretches, self._stretches(text, rules)
            if stretches == last_stretches and kind not in ("comma", "piece"):
                continue
            last_ids, ids = ids, [i for s in stretches for i in self._encode(s, rules)]
            needed += [kind] * (ids != last_ids)
        if ids != found:
            needed.append("tie" if self._is_tie(ids, found) else "unexplained")
        return needed

    def _stretches(self, text: str, rules: Sequence[str]) -> list[str | int]:
        """The text normalised, in one stretch or with ids of special pieces in between."""
        if "special" not in rules:
            return [self._normalize(text, rules)]
        parts = re.split(f"({'|'.join(map(re.escape, SPECIAL))})", text)
        return [SPECIAL.index(p) if p in SPECIAL else self._normalize(p, rules) for p in parts]

    def _encode(self, stretch: str | int, rules: Sequence[str]) -> list[int]:
        if isinstance(stretch, int):
            return [stretch]
        if "piece" in rules:
            # SentencePiece matches no <unk>; a character without a piece gives the same id.
            return self.spelled.encode(stretch.replace("<unk>", "\ufdd0"))
        if "comma" in rules:
            return self.costly.encode(stretch)
        return next(original_ids(self.plain, [stretch]))

    def _normalize(self, text: str, rules: Sequence[str]) -> str:
        if "space" in rules:
            text = re.sub("[\x0b\x1c-\x1f]", "", text)
        text = " ".join(text.split()).replace("``", '"').replace("''", '"')
        drop = _drop_marks if "mark" in rules else _drop_combining
        chars = {c: drop(c) for c in set(text)}
        if "sigma" in rules:
            chars = {c: plain.lower() for c, plain in chars.items()}
        if "unicode" in rules:
            young = [c for c in chars if unicodedata.ucd_3_2_0.category(c) == "Cn"]
            chars |= {c: self.rust(c) for c in young}
        text = "".join(chars[c] for c in text)
        return text if "sigma" in rules else text.lower()

    def _is_tie(self, ids: list[int], others: list[int]) -> bool:
        """Whether both spell the same text with the same probability."""
        if self._spell(ids) != self._spell(others):
            return False
        total, other = self.scores[ids].sum(), self.scores[others].sum()
        return abs(total - other) <= np.spacing(np.float32(abs(total)))

    def _spell(self, ids: list[int]) -> str:
        return "".join(self.pieces[i] for i in ids)
