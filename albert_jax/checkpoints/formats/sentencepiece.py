"""SentencePiece's model format: parses and builds `.model` files."""

from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

# The protocol buffer's classes are created at import time, so type checkers do not see them.
_ModelProto: Any = vars(sentencepiece_model_pb2)["ModelProto"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = (
    _ModelProto.SentencePiece.Type.Value(name)
    for name in ("NORMAL", "UNKNOWN", "CONTROL", "USER_DEFINED")
)
UNIGRAM = vars(sentencepiece_model_pb2)["TrainerSpec"].ModelType.Value("UNIGRAM")


class Piece(NamedTuple):
    """One entry of the vocabulary: its log-probability, and its kind (NORMAL, UNKNOWN, …)."""

    text: str
    score: float
    kind: int = NORMAL


class Model(NamedTuple):
    """The parts of a model that determine a text's ids.

    Attributes:
      pieces: the vocabulary, in the order of the ids.
      charsmap: the compiled table for normalising characters; empty for none.
      model_type: UNIGRAM, or another of SentencePiece's algorithms.
    """

    pieces: list[Piece]
    charsmap: bytes
    model_type: int = UNIGRAM


def parse_model(proto: bytes) -> Model:
    """Parses the bytes of a `.model` file.

    Raises:
      ValueError: if they are not a SentencePiece model.
    """
    try:
        model = _ModelProto.FromString(proto)
    except DecodeError:
        raise ValueError("not a SentencePiece model") from None
    if not model.pieces:
        raise ValueError("not a SentencePiece model")
    pieces = [Piece(p.piece, p.score, p.type) for p in model.pieces]
    charsmap = model.normalizer_spec.precompiled_charsmap
    return Model(pieces, charsmap, model.trainer_spec.model_type)


def build_model(model: Model) -> bytes:
    """Returns the bytes of a `.model` file with ALBERT's settings: pad 0, unk 1, no bos and eos.

    Training settings that do not affect a text's ids keep their defaults.
    """
    proto = _ModelProto()
    for piece in model.pieces:
        # The default kind is omitted, as SentencePiece omits it.
        kind = {} if piece.kind == NORMAL else {"type": piece.kind}
        proto.pieces.add(piece=piece.text, score=piece.score, **kind)
    trainer = proto.trainer_spec
    trainer.model_type, trainer.vocab_size = model.model_type, len(model.pieces)
    trainer.control_symbols.extend(p.text for p in model.pieces[2:] if p.kind == CONTROL)
    trainer.user_defined_symbols.extend(p.text for p in model.pieces if p.kind == USER_DEFINED)
    trainer.pad_id, trainer.unk_id, trainer.bos_id, trainer.eos_id = 0, 1, -1, -1
    trainer.pad_piece, trainer.unk_piece = (p.text for p in model.pieces[:2])
    proto.normalizer_spec.name = "nmt_nfkc" if model.charsmap else "identity"
    proto.normalizer_spec.precompiled_charsmap = model.charsmap
    return proto.SerializeToString()
