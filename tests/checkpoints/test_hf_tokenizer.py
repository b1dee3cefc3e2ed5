"""Tokenizer files of Hugging Face directories: written, read, rebuilt, refused."""

import json
import random
from typing import Any

import pytest
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2
from support.pieces import english, train_tokenizer

from albert_jax.checkpoints.formats.hf_tokenizer import read_tokenizer, write_tokenizer
from albert_jax.checkpoints.formats.sentencepiece import Piece, build_model, parse_model
from albert_jax.data.tokenizers import ENGLISH, TextRules, Vocabulary, load_tokenizer

ModelProto: Any = vars(sentencepiece_model_pb2)["ModelProto"]  # made at import

TEXTS = [
    "I was born in 92000, and this is falsé.",
    "The U.S. (so) paid £1,500 — “naïvely”, in 9, ½ of 1,234,567,",
    "Ｆｕｌｌ ﬁne 日本 👍🏽 `` he ''",
    "",
]


@pytest.fixture(scope="module")
def proto(shared_data) -> bytes:
    return (shared_data / "albert_vocab" / "30k-clean.model").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    draw = random.Random(0)
    numbers = [f"{a}{b}2," for a in "abc" for b in "xyz"]
    path = tmp_path_factory.mktemp("small") / "m"
    train_tokenizer([" ".join(draw.choices(numbers, k=9)) for _ in range(500)], path, 26)
    return path.read_bytes()


@pytest.fixture(params=["albert", "small"])
def either(request, small) -> bytes:
    return small if request.param == "small" else request.getfixturevalue("proto")


def our_ids(tmp_path, proto: bytes, texts: list[str]) -> list[list[int]]:
    (tmp_path / "m.model").write_bytes(proto)
    return load_tokenizer(tmp_path / "m.model").encode_batch(texts)


def edit(path, change) -> None:
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values), "utf-8")


def test_bytes_come_back(either, tmp_path):
    write_tokenizer(english(either), tmp_path / "new" / "hf")
    assert (tmp_path / "new" / "hf" / "spiece.model").read_bytes() == either
    assert read_tokenizer(tmp_path / "new" / "hf") == english(either)


def test_tokenizer_json_alone_gives_the_same_ids(either, tmp_path):
    write_tokenizer(english(either), tmp_path)
    (tmp_path / "spiece.model").unlink()
    rebuilt = read_tokenizer(tmp_path).contents
    assert parse_model(rebuilt) == parse_model(either)
    texts = [*TEXTS, "ax2, by2,cz2, 2,"]
    assert our_ids(tmp_path, rebuilt, texts) == our_ids(tmp_path, either, texts)


def test_models_are_read_and_built_as_sentencepiece_does(either):
    official = ModelProto.FromString(either)
    model = parse_model(either)
    assert model.pieces == [Piece(p.piece, p.score, p.type) for p in official.pieces]
    assert model.charsmap == official.normalizer_spec.precompiled_charsmap
    again = ModelProto.FromString(build_model(model))
    assert list(again.pieces) == list(official.pieces)
    for key in ("model_type", "vocab_size", "unk_id", "bos_id", "eos_id", "pad_id", "unk_piece"):
        assert getattr(again.trainer_spec, key) == getattr(official.trainer_spec, key)
    for key in ("pad_piece", "unk_surface", "byte_fallback", "treat_whitespace_as_suffix"):
        assert getattr(again.trainer_spec, key) == getattr(official.trainer_spec, key)
    for key in ("control_symbols", "user_defined_symbols"):
        assert list(getattr(again.trainer_spec, key)) == list(getattr(official.trainer_spec, key))
    for key in ("add_dummy_prefix", "remove_extra_whitespaces", "escape_whitespaces"):
        assert getattr(again.normalizer_spec, key) == getattr(official.normalizer_spec, key)
    # Without its table SentencePiece normalises nothing.
    bare = spm.SentencePieceProcessor(model_proto=build_model(model._replace(charsmap=b"")))
    assert bare.normalize("ﬁ") == "▁ﬁ"


def test_missing_files_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"none of spiece\.model, vocab\.txt and tokenizer\.json"
    ):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("do_lower_case", False), ("keep_accents", True), ("remove_space", False)]
)
def test_other_text_rules_are_read_and_written(small, tmp_path, key, value):
    vocabulary = Vocabulary("sentencepiece", small, TextRules(**{key: value}))
    write_tokenizer(vocabulary, tmp_path)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())[key] is value
    assert read_tokenizer(tmp_path) == vocabulary
    edit(tmp_path / "tokenizer_config.json", lambda v: v.update({key: "yes"}))
    with pytest.raises(ValueError, match=rf"tokenizer_config\.json: {key} is 'yes'; it must be"):
        read_tokenizer(tmp_path)


def test_a_lone_vocabulary_has_english_rules_and_a_warning_says_so(small, tmp_path):
    write_tokenizer(english(small), tmp_path)
    for name in ("tokenizer_config.json", "tokenizer.json"):
        (tmp_path / name).unlink()
    with pytest.warns(UserWarning, match=r"spiece\.model has no tokenizer_config\.json beside it"):
        assert read_tokenizer(tmp_path) == english(small)


def test_other_json_is_refused(small, tmp_path):
    def rename(values):
        values["model"]["vocab"][4][0] = "<mask>"

    def add(values):
        values["added_tokens"].append({"id": 26, "content": "[NEW]"})

    def drop(values):
        values["model"]["vocab"][7] = ["x"]

    cases = [
        (lambda v: v["model"].update(type="BPE", vocab={}), "not a Unigram model"),
        (rename, "the first pieces are"),
        (add, r"contains pieces that are neither text nor .*\[NEW\]"),
        (drop, "not a tokenizer written by transformers"),
        (lambda v: v.pop("model"), "not a tokenizer written by transformers"),
    ]
    for n, (change, reason) in enumerate(cases):
        write_tokenizer(english(small), tmp_path / str(n))
        (tmp_path / str(n) / "spiece.model").unlink()
        edit(tmp_path / str(n) / "tokenizer.json", change)
        with pytest.raises(ValueError, match=rf"tokenizer\.json: {reason}"):
            read_tokenizer(tmp_path / str(n))
    (tmp_path / "0" / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json:1: not JSON"):
        read_tokenizer(tmp_path / "0")


@pytest.mark.parametrize("has_model", [True, False])
def test_the_normalizer_decides_whether_case_is_kept(small, tmp_path, has_model):
    write_tokenizer(english(small), tmp_path)
    if not has_model:
        (tmp_path / "spiece.model").unlink()

    def keep_case(values: dict) -> None:
        steps = values["normalizer"]["normalizers"]
        values["normalizer"]["normalizers"] = [s for s in steps if s["type"] != "Lowercase"]

    assert read_tokenizer(tmp_path).rules == ENGLISH
    edit(tmp_path / "tokenizer.json", keep_case)
    edit(tmp_path / "tokenizer_config.json", lambda values: values.pop("do_lower_case"))
    assert read_tokenizer(tmp_path).rules == TextRules(do_lower_case=False)


def test_models_that_albert_tokenizer_cannot_hold_are_refused(small, tmp_path):
    model = parse_model(small)
    fallback = [*model.pieces, Piece("<0x00>", 0.0, 6)]
    for other, reason in [
        (model._replace(model_type=2), "not a Unigram model"),
        (model._replace(pieces=model.pieces[1:]), "the first pieces"),
        (model._replace(pieces=fallback), "<0x00>"),
    ]:
        with pytest.raises(ValueError, match=reason):
            write_tokenizer(english(build_model(other)), tmp_path / "hf")
    for damaged in (b"", b"not a model", small[:-1], small[: len(small) // 2]):
        with pytest.raises(ValueError, match="not a SentencePiece model"):
            write_tokenizer(english(damaged), tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
