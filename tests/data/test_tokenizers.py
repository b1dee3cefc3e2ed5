"""Rules of text, WordPiece, vocabularies of any size, and the files that hold them."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pieces import english

from albert_jax.data.tokenizers import (
    ENGLISH,
    TextRules,
    Vocabulary,
    id_dtype,
    load_tokenizer,
    read_vocabulary,
    tokenizer_of,
)
from albert_jax.data.tokenizers.rules import (
    count_removed_marks,
    normalize,
    normalize_with_offsets,
)
from albert_jax.prepare.vocabulary import train_sentencepiece

CASED = TextRules(do_lower_case=False, keep_accents=True)
RULES = st.builds(TextRules, st.booleans(), st.booleans(), st.booleans())
VOCAB = ("[unused1]", "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "play", "##ing", "##ed", "天",
         "气", "ü", "u", "##ber", "Ü", ",")  # fmt: skip


def wordpiece(rules: TextRules = ENGLISH, pieces: tuple[str, ...] = VOCAB) -> Vocabulary:
    return Vocabulary("wordpiece", "".join(f"{p}\n" for p in pieces).encode(), rules)


@given(text=st.text(max_size=40), rules=RULES)
def test_offsets_belong_to_the_normalized_text(text, rules):
    plain, offsets = normalize_with_offsets(text, rules)
    assert plain == normalize(text, rules)
    assert len(offsets) == len(plain) + 1
    assert offsets == sorted(offsets)
    assert offsets[-1] <= len(text)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (ENGLISH, "uber den arger"),
        (TextRules(do_lower_case=False), "Uber den Arger"),
        (TextRules(keep_accents=True), "über den ärger"),
        (TextRules(False, True), "Über den Ärger"),
        (TextRules(False, True, remove_space=False), "Über  den Ärger "),
    ],
)
def test_case_accents_and_spaces(rules, expected):
    assert normalize("Über  den Ärger ", rules) == expected


@given(text=st.text(max_size=40))
def test_marks_that_are_kept_are_not_counted(text):
    assert count_removed_marks(text, TextRules(keep_accents=True)) == 0
    plain = unicodedata.normalize("NFKD", text)
    assert count_removed_marks(text) == sum(unicodedata.combining(c) != 0 for c in plain)


def test_special_ids_and_reserved_pieces_come_from_the_vocabulary():
    tokenizer = tokenizer_of(wordpiece(), "v")
    assert tokenizer.special == (3, 4, 1, 2, 5)
    assert tokenizer.pieces(tokenizer.table.text_ids) == list(VOCAB[6:])


def test_wordpiece_encodes_longest_pieces_first():
    tokenizer = tokenizer_of(wordpiece(), "v")
    ids = tokenizer.encode("Playing, ÜBER 天气 [MASK] ?")
    pieces = ["play", "##ing", ",", "u", "##ber", "天", "气", *["[UNK]"] * 4]
    assert tokenizer.pieces(ids) == pieces
    assert tokenizer.word_starts[ids].tolist() == [p[:2] != "##" for p in pieces]
    assert tokenizer.decode(ids[:7]) == "playing , uber天气"
    cased = tokenizer_of(wordpiece(TextRules(False, True)), "v")
    assert cased.pieces(cased.encode("Über Play")) == ["Ü", "##ber", "[UNK]"]


@pytest.mark.parametrize("rules", [ENGLISH, TextRules(False, True, True, False)], ids=str)
def test_rules_are_kept_beside_the_vocabulary(rules, tmp_path):
    vocabulary = wordpiece(rules)
    vocabulary.write(tmp_path)
    assert read_vocabulary(tmp_path) == vocabulary
    assert load_tokenizer(tmp_path).sha256 == load_tokenizer(tmp_path / "vocab.txt").sha256
    assert (vocabulary.sha256 == wordpiece().sha256) is (rules == ENGLISH)


def test_a_folder_of_hugging_face_is_a_vocabulary_with_its_rules(tmp_path):
    model = train_sentencepiece(["Über den Ärger", "under the cat"] * 9, 30, rules=CASED)
    Vocabulary("sentencepiece", model, CASED).write(tmp_path, "spiece.model")
    assert load_tokenizer(tmp_path).vocabulary == Vocabulary("sentencepiece", model, CASED)
    assert load_tokenizer(tmp_path).decode(load_tokenizer(tmp_path).encode("Über")) == "Über"


def test_without_a_word_on_accents_they_go_with_the_case(tmp_path):
    wordpiece().write(tmp_path)
    for lower in (True, False):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
        assert read_vocabulary(tmp_path).rules == TextRules(lower, keep_accents=not lower)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"\xff\xfe", "not UTF-8 text, unlike a vocab.txt"),
        (b"a\nb\n", r"has no line \[PAD\], \[UNK\], \[CLS\], \[SEP\], \[MASK\]"),
        (b"", r"has no line"),
    ],
)
def test_other_files_are_refused(contents, message, tmp_path):
    (tmp_path / "vocab.txt").write_bytes(contents)
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path / "vocab.txt")


def test_windows_line_ends_and_a_mark_of_byte_order_are_read(tmp_path):
    text = "\r\n".join(VOCAB) + "\r\n"
    (tmp_path / "vocab.txt").write_bytes(text.encode("utf-8-sig"))
    assert load_tokenizer(tmp_path / "vocab.txt").spellings == list(VOCAB)


def test_ids_are_stored_in_as_few_bits_as_do():
    assert id_dtype(65_536) is np.uint16
    assert id_dtype(65_537) is np.uint32
    many = tuple(f"w{i}" for i in range(70_000))
    tokenizer = tokenizer_of(wordpiece(pieces=(*VOCAB, *many)), "v")
    ids, lengths = tokenizer.encode_flat(["w69999 w0"])
    assert ids.dtype == np.uint32
    assert ids.tolist() == [len(VOCAB) + 69_999, len(VOCAB)]
    assert lengths.tolist() == [2]


def test_an_english_vocabulary_has_the_digest_of_its_file():
    assert english(b"model").sha256 == Vocabulary("sentencepiece", b"model", ENGLISH).sha256


def test_the_published_chinese_vocabulary(shared_data: Path):
    tokenizer = load_tokenizer(shared_data / "wordpiece" / "chinese_21128_vocab.txt")
    assert tokenizer.special == (0, 100, 101, 102, 103)
    assert tokenizer.decode(tokenizer.encode("今天天气很好, playing")) == "今天天气很好, playing"
