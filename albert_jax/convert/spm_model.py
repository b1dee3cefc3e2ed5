"""SentencePiece's model format: what a `.model` file holds, and such a file from its parts.

The format is a protocol buffer. SentencePiece ships a Python module for it, which demands a
protobuf runtime as new as the compiler that made it; the few fields that matter here are read
and written by hand instead, so that no such demand is passed on.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

# Source of all numbers that follow: google/sentencepiece, src/sentencepiece_model.proto.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4  # ModelProto.SentencePiece.Type
UNIGRAM = 1  # TrainerSpec.ModelType
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # ModelProto
_TEXT, _SCORE, _KIND = 1, 2, 3  # ModelProto.SentencePiece
_MODEL_TYPE, _VOCAB_SIZE, _CONTROL_SYMBOLS, _USER_SYMBOLS = 3, 4, 30, 31  # TrainerSpec
_UNK_ID, _BOS_ID, _EOS_ID, _PAD_ID, _UNK_PIECE, _PAD_PIECE = 40, 41, 42, 43, 45, 48
_NAME, _CHARSMAP = 1, 2  # NormalizerSpec

# Source: protobuf.dev, "Encoding", wire types: varint, 8 bytes, counted bytes, 4 bytes.
_VARINT, _EIGHT, _COUNTED, _FOUR = 0, 1, 2, 5


class Piece(NamedTuple):
    """One entry of the vocabulary: its log-probability, and its kind (NORMAL, UNKNOWN, …)."""

    text: str
    score: float
    kind: int = NORMAL


class Model(NamedTuple):
    """What decides which ids a text gets.

    Attributes:
      pieces: the vocabulary, in the order of the ids.
      charsmap: the compiled table that normalises characters; empty for none.
      model_type: UNIGRAM, or another of SentencePiece's algorithms.
    """

    pieces: list[Piece]
    charsmap: bytes
    model_type: int = UNIGRAM


def parse_model(proto: bytes) -> Model:
    """Reads the bytes of a `.model` file.

    Raises:
      ValueError: they are none.
    """
    pieces, charsmap, model_type = [], b"", UNIGRAM
    try:
        for field, value in _fields(proto):
            if field == _PIECES:
                pieces.append(_parse_piece(value))
            elif field == _TRAINER:
                model_type = dict(_fields(value)).get(_MODEL_TYPE, UNIGRAM)
            elif field == _NORMALIZER:
                charsmap = dict(_fields(value)).get(_CHARSMAP, b"")
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, struct.error):
        raise ValueError("not a SentencePiece model") from None
    if not pieces:
        raise ValueError("not a SentencePiece model")
    return Model(pieces, charsmap, model_type)


def build_model(model: Model) -> bytes:
    """Returns the bytes of a `.model` file with ALBERT's settings: pad 0, unk 1, no bos and eos.

    Training settings that do not touch the ids of a text are left to their defaults.
    """
    trainer = [
        (_MODEL_TYPE, model.model_type),
        (_VOCAB_SIZE, len(model.pieces)),
        *((_CONTROL_SYMBOLS, p.text) for p in model.pieces[2:] if p.kind == CONTROL),
        *((_USER_SYMBOLS, p.text) for p in model.pieces if p.kind == USER_DEFINED),
        (_UNK_ID, 1),
        (_BOS_ID, -1),
        (_EOS_ID, -1),
        (_PAD_ID, 0),
        (_UNK_PIECE, model.pieces[1].text),
        (_PAD_PIECE, model.pieces[0].text),
    ]
    name = "nmt_nfkc" if model.charsmap else "identity"
    normalizer = [(_NAME, name), (_CHARSMAP, model.charsmap)]
    pieces = [(_PIECES, _piece(p)) for p in model.pieces]
    parts = [(_TRAINER, _message(trainer)), (_NORMALIZER, _message(normalizer))]
    return _message([*pieces, *parts])


def _parse_piece(message: bytes) -> Piece:
    values = dict(_fields(message))
    (score,) = struct.unpack("<f", values.get(_SCORE, bytes(4)))
    return Piece(values[_TEXT].decode(), score, values.get(_KIND, NORMAL))


def _piece(piece: Piece) -> bytes:
    kind = [] if piece.kind == NORMAL else [(_KIND, piece.kind)]  # the default, left out
    return _message([(_TEXT, piece.text), (_SCORE, piece.score), *kind])


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields field numbers and values: an int for a varint, else the bytes as they stand."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _read_varint(message, at)
        else:
            if wire == _COUNTED:
                size, at = _read_varint(message, at)
            else:
                size = {_EIGHT: 8, _FOUR: 4}.get(wire, len(message))
            at += size
            value = message[at - size : at]
            if at > len(message):
                raise IndexError
        yield key >> 3, value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def _message(fields: Iterable[tuple[int, int | float | str | bytes]]) -> bytes:
    out = bytearray()
    for field, value in fields:
        if isinstance(value, int):
            out += _varint(field << 3 | _VARINT) + _varint(value)
        elif isinstance(value, float):
            out += _varint(field << 3 | _FOUR) + struct.pack("<f", value)
        else:
            value = value.encode() if isinstance(value, str) else value
            out += _varint(field << 3 | _COUNTED) + _varint(len(value)) + value
    return bytes(out)


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative numbers in two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
