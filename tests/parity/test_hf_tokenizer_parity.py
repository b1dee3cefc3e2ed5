"""Tokenizer files, there and here: transformers loads ours, and what it saves is read."""

import json

import numpy as np
import pytest
import tokenizers
from support.pieces import english
from transformers import AlbertTokenizer, AutoTokenizer

from albert_jax.checkpoints.formats.hf_tokenizer import read_tokenizer, write_tokenizer
from albert_jax.checkpoints.formats.sentencepiece import parse_model
from albert_jax.data.tokenizers import load_tokenizer

pytestmark = [pytest.mark.torch, pytest.mark.slow]

TEXTS = [
    "I was born in 92000, and this is falsé.",
    "The U.S. (so) paid £1,500 — “naïvely”, in 9, ½ of 1,234,567,",
    "Ｆｕｌｌ ﬁne 日本 👍🏽 `` he ''",
    "",
]


@pytest.fixture(scope="module")
def proto(shared_data) -> bytes:
    return (shared_data / "albert_vocab" / "30k-clean.model").read_bytes()


def our_ids(tmp_path, proto: bytes, texts: list[str]) -> list[list[int]]:
    (tmp_path / "m.model").write_bytes(proto)
    return load_tokenizer(tmp_path / "m.model").encode_batch(texts)


@pytest.mark.parametrize("source", ["ours", "spiece.model"])
def test_what_transformers_saves_is_read(proto, tmp_path, source):
    write_tokenizer(english(proto), tmp_path)
    if source == "spiece.model":  # then it writes scores without the cost of commas
        (tmp_path / "tokenizer.json").unlink()
    AlbertTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "spiece.model").exists()
    assert parse_model(read_tokenizer(tmp_path / "saved").contents) == parse_model(proto)


def test_transformers_loads_the_directory(proto, tmp_path):
    write_tokenizer(english(proto), tmp_path, max_length=384)
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    expected = our_ids(tmp_path, proto, TEXTS)
    for with_spiece in (True, False):  # without it, neither sentencepiece nor protobuf is needed
        if not with_spiece:
            (tmp_path / "spiece.model").unlink()
        for loaded in (AlbertTokenizer, AutoTokenizer):
            theirs = loaded.from_pretrained(tmp_path)
            assert type(theirs) is AlbertTokenizer
            assert theirs.model_max_length == 384
            assert len(theirs) == theirs.vocab_size == 30_000
            assert sorted(theirs.added_tokens_decoder) == [0, 1, 2, 3, 4]
            assert theirs(TEXTS, add_special_tokens=False)["input_ids"] == expected
            pair = theirs("a cat", "sat")
            assert pair["input_ids"] == [2, *theirs("a cat")["input_ids"][1:], 847, 3]
            assert pair["token_type_ids"] == [0, 0, 0, 0, 1, 1]
            assert theirs.convert_ids_to_tokens(pair["input_ids"])[0] == "[CLS]"
            assert theirs.mask_token_id == 4
            assert theirs.decode(expected[0]) == "i was born in 92000, and this is false."


def test_the_whole_json_is_what_transformers_builds(proto, tmp_path):
    write_tokenizer(english(proto), tmp_path)
    whole = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    built = AlbertTokenizer.from_pretrained(tmp_path).backend_tokenizer
    a, b = json.loads(whole.to_str()), json.loads(built.to_str())
    # `tokenizers` may be a last digit off where it reads numbers.
    a_vocab, b_vocab = a["model"].pop("vocab"), b["model"].pop("vocab")
    assert a == b
    assert [p for p, _ in a_vocab] == [p for p, _ in b_vocab]
    np.testing.assert_allclose([x for _, x in a_vocab], [x for _, x in b_vocab], rtol=1e-15)
