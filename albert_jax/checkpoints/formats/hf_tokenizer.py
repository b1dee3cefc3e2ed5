"""Reads and writes vocabularies in the format of Hugging Face transformers.

A directory holds `spiece.model`, which transformers 4 reads, and `tokenizer.json`, which
transformers 5 reads. From `spiece.model` alone, transformers 5 would first split the text at each
`( ) " - . – £ €`, and so give different ids ("s" as "▁", "s" in "U.S.").
"""

import base64
import json
from pathlib import Path
from typing import Any

from albert_jax.checkpoints.formats.sentencepiece import (
    CONTROL,
    NORMAL,
    UNIGRAM,
    UNKNOWN,
    USER_DEFINED,
    Model,
    Piece,
    build_model,
    parse_model,
)
from albert_jax.data.files import read_object
from albert_jax.data.tokenizer import CLS, CONTROL_SYMBOLS, NUM_SPECIAL, SEP, UNK, WORD_MARK

_SPECIAL = ("<pad>", "<unk>", *CONTROL_SYMBOLS)
# ALBERT splits pieces like "9," after encoding, which a Unigram model cannot do. transformers
# makes such pieces too costly to be chosen, which has nearly the same effect.
# Source: transformers, convert_slow_tokenizer.py, `AlbertConverter.vocab`.
_COMMA_COST = 100.0
# The only values in tokenizer_config.json that agree with `tokenizer.normalize`.
_REQUIRED = {"do_lower_case": True, "keep_accents": False, "remove_space": True}


def write_tokenizer(proto: bytes, directory: Path, max_length: int = 512) -> None:
    """Writes the tokenizer files of a Hugging Face ALBERT directory.

    Args:
      proto: the bytes of a SentencePiece model file with ALBERT's ids.
      directory: the output directory; created if missing.
      max_length: the model's positions, at which transformers truncates; the published models
        have 512.

    Raises:
      ValueError: if transformers' `AlbertTokenizer` cannot represent the model.
    """
    model = parse_model(proto)
    _check(model, "tokenizer")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "spiece.model").write_bytes(proto)
    _write_json(directory / "tokenizer_config.json", _config(max_length))
    _write_json(directory / "tokenizer.json", _pipeline(model))


def read_tokenizer(directory: Path) -> bytes:
    """Reads the vocabulary of a Hugging Face ALBERT directory.

    Args:
      directory: holds `spiece.model`, or `tokenizer.json`, from which a model with the same ids
        is built.

    Returns:
      The bytes of a SentencePiece `.model` file.

    Raises:
      FileNotFoundError: if neither file exists.
      ValueError: if a file is damaged, or requires something that `Tokenizer` does not support.
    """
    _check_config(directory / "tokenizer_config.json")
    proto, pipeline = directory / "spiece.model", directory / "tokenizer.json"
    if pipeline.is_file():
        _check_lower_case(pipeline)
    if proto.is_file():
        return proto.read_bytes()
    if not pipeline.is_file():
        raise FileNotFoundError(
            f"{directory}: neither spiece.model nor tokenizer.json; write one with transformers' "
            "tokenizer.save_pretrained"
        )
    values = read_object(pipeline)
    try:
        model = _parse_pipeline(values)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"{pipeline}: not a tokenizer written by transformers; write it again with "
            "tokenizer.save_pretrained, or put the spiece.model next to it"
        ) from None
    _check(model, str(pipeline))
    return build_model(model)


def _check_lower_case(pipeline: Path) -> None:
    """Checks that a tokenizer.json lower-cases, if it is one of a library's: it then decides.

    Raises:
      ValueError: if it keeps capital letters.
    """
    values = read_object(pipeline)
    normalizer = values.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer]) if isinstance(normalizer, dict) else []
    kinds = [step.get("type") for step in steps if isinstance(step, dict)]
    if "model" in values and "Lowercase" not in kinds:
        raise ValueError(
            f"{pipeline}: its normalizer keeps capital letters, but this package lower-cases all "
            "text; use an uncased model"
        )


def tokenizer_files(directory: Path) -> list[Path]:
    """Returns the files that `read_tokenizer` reads."""
    vocabularies = ("spiece.model", "tokenizer.json")
    found = [directory / name for name in vocabularies if (directory / name).is_file()]
    config = directory / "tokenizer_config.json"
    return found[:1] + [config] * config.is_file()


def _config(max_length: int) -> dict[str, Any]:
    names = ("pad", "unk", "cls", "sep", "mask")
    tokens = {f"{name}_token": text for name, text in zip(names, _SPECIAL, strict=True)}
    return {
        "tokenizer_class": "AlbertTokenizer",
        "model_max_length": max_length,
        # Without this, transformers 5 omits the token types, and a model reads a pair as one text.
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        **_REQUIRED,
        **tokens,
        "bos_token": _SPECIAL[CLS],
        "eos_token": _SPECIAL[SEP],
    }


def _pipeline(model: Model) -> dict[str, Any]:
    """Returns the contents of tokenizer.json.

    transformers 5 reads only vocabulary and table from it and builds the rest itself. The rest is
    included for libraries that load the complete file: transformers 4 and `tokenizers`.

    Source: transformers, models/albert/tokenization_albert.py.
    """
    metaspace = {
        "type": "Metaspace",
        "replacement": WORD_MARK,
        "prepend_scheme": "always",
        "split": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(i, text) for i, text in enumerate(_SPECIAL)],
        "normalizer": _normalizer(model.charsmap),
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace],
        },
        "post_processor": _template(),
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": UNK,
            "vocab": [[p.text, p.score - _cost(p.text)] for p in model.pieces],
            "byte_fallback": False,
        },
    }


def _added_token(i: int, text: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": text, **flags, "special": True}


def _normalizer(charsmap: bytes) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": quote}, "content": '"'} for quote in ("``", "''")
    ]
    steps += [{"type": kind} for kind in ("NFKD", "StripAccents", "Lowercase")]
    if charsmap:
        table = base64.b64encode(charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": table})
    return {"type": "Sequence", "normalizers": steps}


def _template() -> dict[str, Any]:
    """Returns the template [CLS] A [SEP], or [CLS] A [SEP] B [SEP] with type ids 0 and 1."""

    def special(i: int, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": _SPECIAL[i], "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [special(CLS, 0), text("A", 0), special(SEP, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), special(SEP, 1)],
        "special_tokens": {
            s: {"id": s, "ids": [i], "tokens": [s]}
            for i, s in enumerate(_SPECIAL)
            if i in (CLS, SEP)
        },
    }


def _parse_pipeline(values: dict[str, Any]) -> Model:
    """Returns the SentencePiece model described by the contents of tokenizer.json."""
    vocabulary = values["model"]
    if vocabulary["type"] != "Unigram":
        return Model([], b"", model_type=0)
    pieces = [
        Piece(text, _given_score(text, score), _kind(i, score))
        for i, (text, score) in enumerate(vocabulary["vocab"])
    ]
    added = [t for t in values["added_tokens"] if t["id"] >= len(pieces)]
    # Added tokens are not SentencePiece pieces. Appending them makes the later check report them.
    pieces += [Piece(t["content"], 0.0, CONTROL) for t in added]
    normalizer = values["normalizer"] or {}
    steps = normalizer.get("normalizers", [normalizer])
    tables = [s["precompiled_charsmap"] for s in steps if s.get("type") == "Precompiled"]
    return Model(pieces, base64.b64decode(tables[0]) if tables else b"")


def _kind(i: int, score: float) -> int:
    # User-defined symbols have probability 1, which no piece learned from text has.
    if i < NUM_SPECIAL:
        return UNKNOWN if i == UNK else CONTROL
    return USER_DEFINED if score == 0 else NORMAL


def _cost(piece: str) -> float:
    has_comma = len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()
    return _COMMA_COST if has_comma else 0.0


def _given_score(piece: str, score: float) -> float:
    # Files exist both with the cost (from transformers 4 and this package) and without it (from
    # transformers 5, based on a spiece.model). Training never yields a log-probability of -100.
    return score + _cost(piece) if score <= -_COMMA_COST else float(score)


def _check(model: Model, source: str) -> None:
    if model.model_type != UNIGRAM:
        raise ValueError(f"{source}: not a Unigram model, unlike ALBERT's; use another vocabulary")
    found = tuple(p.text for p in model.pieces[:NUM_SPECIAL])
    if found != _SPECIAL:
        raise ValueError(
            f"{source}: the first pieces are {found}, but must be {_SPECIAL}; "
            "train a vocabulary with prepare --vocab_size"
        )
    odd = [
        p.text
        for i, p in enumerate(model.pieces)
        if p.kind not in ((NORMAL, USER_DEFINED) if i >= NUM_SPECIAL else (CONTROL, UNKNOWN))
    ]
    if odd:
        raise ValueError(
            f"{source}: contains pieces that are neither text nor ALBERT's special pieces, such "
            f"as {odd[:3]}; remove those that were added after training"
        )


def _check_config(path: Path) -> None:
    if not path.is_file():
        return
    config = read_object(path)
    for key, value in _REQUIRED.items():
        if config.get(key, value) != value:
            raise ValueError(
                f"{path}: {key} is {json.dumps(config[key])}, but albert_jax always collapses "
                "spaces, lower-cases and strips accents, so its ids would not match this model; "
                "use an uncased model"
            )


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False) + "\n", "utf-8")
