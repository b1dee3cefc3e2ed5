"""Reads and writes vocabularies in the format of Hugging Face transformers.

A directory holds `spiece.model` or `vocab.txt`, which transformers 4 reads, and `tokenizer.json`,
which transformers 5 reads. From `spiece.model` alone, transformers 5 would first split the text at
each `( ) " - . – £ €`, and so give different ids ("s" as "▁", "s" in "U.S.").
"""

import base64
import json
import warnings
from pathlib import Path
from typing import Any

from albert_jax.checkpoints.formats.hf_wordpiece import vocabulary_of_pipeline, wordpiece_pipeline
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
from albert_jax.data.tokenizers import TextRules, Vocabulary
from albert_jax.data.tokenizers.sentencepiece import WORD_MARK
from albert_jax.data.tokenizers.vocabulary import (
    CONFIG,
    SPECIAL,
    default_rules_taken,
    rules_of,
)

# kind -> the file of the vocabulary in a Hugging Face directory.
_FILES = {"sentencepiece": "spiece.model", "wordpiece": "vocab.txt"}
_PIPELINE = "tokenizer.json"
_SPECIAL = SPECIAL["sentencepiece"]
_, _UNK, _CLS, _SEP, _ = range(len(_SPECIAL))  # where AlbertTokenizer has them
# ALBERT splits pieces like "9," after encoding, which a Unigram model cannot do. transformers
# makes such pieces too costly to be chosen, which has nearly the same effect.
# Source: transformers, convert_slow_tokenizer.py, `AlbertConverter.vocab`.
_COMMA_COST = 100.0


def write_tokenizer(vocabulary: Vocabulary, directory: Path, max_length: int = 512) -> None:
    """Writes the tokenizer files of a Hugging Face directory.

    Args:
      vocabulary: the pieces, and the rules for text.
      directory: the output directory; created if missing.
      max_length: the model's positions, at which transformers truncates; the published models
        have 512.

    Raises:
      ValueError: if transformers' tokenizer of that kind cannot represent the vocabulary.
    """
    rules = vocabulary.rules
    if vocabulary.kind == "wordpiece":
        pipeline = wordpiece_pipeline(vocabulary)
    else:
        model = parse_model(vocabulary.contents)
        _check(model, "tokenizer")
        pipeline = _pipeline(model, rules)
    values = vocabulary.config() | {
        "model_max_length": max_length,
        # Without this, transformers 5 omits the token types, and a model reads a pair as one text.
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    if vocabulary.kind == "sentencepiece":
        values |= {"bos_token": "[CLS]", "eos_token": "[SEP]"}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _FILES[vocabulary.kind]).write_bytes(vocabulary.contents)
    _write_json(directory / CONFIG, values)
    _write_json(directory / _PIPELINE, pipeline)


def read_tokenizer(directory: Path) -> Vocabulary:
    """Reads the vocabulary of a Hugging Face directory.

    Args:
      directory: holds `spiece.model`, `vocab.txt`, or `tokenizer.json`, from which a vocabulary
        with the same ids is built.

    Returns:
      The vocabulary, with the rules of `tokenizer_config.json`; those that it does not give come
      from the normalizer of `tokenizer.json`, or are the defaults of transformers.

    Raises:
      FileNotFoundError: if none of the files exists.
      ValueError: if a file is damaged, or requires something that is not supported.
    """
    config, pipeline = directory / CONFIG, directory / _PIPELINE
    given = read_object(config) if config.is_file() else {}
    values = read_object(pipeline) if pipeline.is_file() else {}
    for kind, name in _FILES.items():
        file = directory / name
        if file.is_file():
            if not given and not values:
                warnings.warn(default_rules_taken(file), stacklevel=2)
            rules = rules_of(_rules_of_pipeline(values) | given, kind, str(config))
            return Vocabulary(kind, file.read_bytes(), rules)
    if not values:
        raise FileNotFoundError(
            f"{directory}: none of spiece.model, vocab.txt and tokenizer.json; write one with "
            "transformers' tokenizer.save_pretrained"
        )
    kind, contents = _read_pipeline(values, str(pipeline))
    rules = rules_of(_rules_of_pipeline(values) | given, kind, str(config))
    return Vocabulary(kind, contents, rules)


def _read_pipeline(values: dict[str, Any], where: str) -> tuple[str, bytes]:
    """Returns the kind and the file of the vocabulary in the contents of tokenizer.json."""
    try:
        if values["model"]["type"] == "WordPiece":
            return "wordpiece", vocabulary_of_pipeline(values)
        model = _parse_pipeline(values)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"{where}: not a tokenizer written by transformers; write it again with "
            "tokenizer.save_pretrained, or put the spiece.model or vocab.txt next to it"
        ) from None
    _check(model, where)
    return "sentencepiece", build_model(model)


def _rules_of_pipeline(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the rules that a tokenizer.json's normalizer stands for, as a config names them."""
    normalizer = values.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer]) if isinstance(normalizer, dict) else []
    kinds = {step.get("type"): step for step in steps if isinstance(step, dict)}
    if (bert := kinds.get("BertNormalizer")) is not None:
        return {
            "do_lower_case": bert.get("lowercase"),
            "strip_accents": bert.get("strip_accents"),
            "tokenize_chinese_chars": bert.get("handle_chinese_chars"),
        }
    if "model" not in values:  # not a library's
        return {}
    return {"do_lower_case": "Lowercase" in kinds, "keep_accents": "StripAccents" not in kinds}


def tokenizer_files(directory: Path) -> list[Path]:
    """Returns the files that `read_tokenizer` reads."""
    names = (*_FILES.values(), _PIPELINE)
    found = [directory / name for name in names if (directory / name).is_file()]
    config = directory / CONFIG
    return found[:1] + [config] * config.is_file()


def _pipeline(model: Model, rules: TextRules) -> dict[str, Any]:
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
        "normalizer": _normalizer(model.charsmap, rules),
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace],
        },
        "post_processor": _template(),
        "decoder": metaspace,
        "model": {
            "type": "Unigram",
            "unk_id": _UNK,
            "vocab": [[p.text, p.score - _cost(p.text)] for p in model.pieces],
            "byte_fallback": False,
        },
    }


def _added_token(i: int, text: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": text, **flags, "special": True}


def _normalizer(charsmap: bytes, rules: TextRules) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": quote}, "content": '"'} for quote in ("``", "''")
    ]
    kinds = ([] if rules.keep_accents else ["NFKD", "StripAccents"]) + (
        ["Lowercase"] if rules.do_lower_case else []
    )
    steps += [{"type": kind} for kind in kinds]
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

    single = [special(_CLS, 0), text("A", 0), special(_SEP, 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), special(_SEP, 1)],
        "special_tokens": {
            s: {"id": s, "ids": [i], "tokens": [s]}
            for i, s in enumerate(_SPECIAL)
            if i in (_CLS, _SEP)
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
    if i < len(_SPECIAL):
        return UNKNOWN if i == _UNK else CONTROL
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
    found = tuple(p.text for p in model.pieces[: len(_SPECIAL)])
    if found != _SPECIAL:
        raise ValueError(
            f"{source}: the first pieces are {found}, but must be {_SPECIAL}; "
            "train a vocabulary with prepare --vocab_size"
        )
    odd = [
        p.text
        for i, p in enumerate(model.pieces)
        if p.kind not in ((NORMAL, USER_DEFINED) if i >= len(_SPECIAL) else (CONTROL, UNKNOWN))
    ]
    if odd:
        raise ValueError(
            f"{source}: contains pieces that are neither text nor ALBERT's special pieces, such "
            f"as {odd[:3]}; remove those that were added after training"
        )


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False) + "\n", "utf-8")
