"""ALBERT's text rules, ids, offsets and word starts; training a vocabulary."""

import random
import unicodedata

import numpy as np
import pytest
import sentencepiece as spm
from support.pieces import CLS, MASK, NUM_SPECIAL, PAD, SEP, UNK, train_tokenizer

from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.data.tokenizers.rules import normalize, normalize_with_offsets

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "in",
    "over",
    "mat",
    "house",
    "river",
    "and",
    "but",
    "1,000",
    "1999,",
    "(so)",
    "é",
    "naïve",
]
WORDS += [
    a + b for a in ["mor", "tan", "sil", "bur", "kel"] for b in ["ing", "ed", "er", "est", "ly"]
]


def make_text(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=12)) + "." for _ in range(count)]


@pytest.fixture(scope="module")
def albert(shared_data) -> Tokenizer:
    return load_tokenizer(shared_data / "albert_vocab" / "30k-clean.model")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("vocab") / "small.model"
    train_tokenizer(make_text(500), path, 50)
    return load_tokenizer(path)


@pytest.fixture(scope="module")
def real_sentences(shared_data) -> list[str]:
    lines = (shared_data / "wikipedia" / "enwiki_03.txt").read_text("utf-8").split("\n")
    return [line for line in lines if line and not line.startswith("<")][:1500]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Hello \t\n World\u00a0! ", "hello world !"),
        ("``quoted''", '"quoted"'),
        ("Café NAÏVE Å", "cafe naive a"),
        ("ﬁne ① x²", "fine 1 x2"),
        ("İstanbul", "istanbul"),
        ("ΟΔΟΣ", "οδος"),
        ("", ""),
    ],
)
def test_normalize(text, expected):
    assert normalize(text) == expected
    assert normalize_with_offsets(text)[0] == expected


def test_normalize_is_the_definition_on_every_character():
    for start in range(0, 0x30000, 997):
        text = "a " + "".join(
            chr(c) for c in range(start, start + 997) if unicodedata.category(chr(c)) != "Cs"
        )
        plain = " ".join(text.split()).replace("``", '"').replace("''", '"')
        plain = unicodedata.normalize("NFKD", plain)
        plain = "".join(c for c in plain if not unicodedata.combining(c)).lower()
        assert normalize(text) == plain


def test_offsets_of_normalisation_never_go_back(real_sentences):
    for text in real_sentences:
        plain, offsets = normalize_with_offsets(text)
        assert plain == normalize(text)
        assert len(offsets) == len(plain) + 1
        assert offsets == sorted(offsets)
        assert offsets[-1] <= len(text)


def test_published_vectors(albert):
    assert albert.encode("this is a test") == [48, 25, 21, 1289]
    pieces = albert.pieces(albert.encode("I was born in 92000, and this is falsé."))
    assert pieces == [
        "▁i",
        "▁was",
        "▁born",
        "▁in",
        "▁9",
        "2000",
        ",",
        "▁and",
        "▁this",
        "▁is",
        "▁false",
        ".",
    ]
    assert albert.pieces([PAD, UNK, CLS, SEP, MASK]) == [
        "<pad>",
        "<unk>",
        "[CLS]",
        "[SEP]",
        "[MASK]",
    ]


def test_no_piece_ends_in_digit_and_comma(albert, real_sentences):
    def breaks_rule(piece):
        return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()

    sp = spm.SentencePieceProcessor(model_file=str(albert.path))
    plain = [normalize(t) for t in real_sentences]
    assert any(breaks_rule(p) for pieces in sp.encode(plain, out_type=str) for p in pieces)
    for text, ids in zip(plain, albert.encode_batch(real_sentences), strict=True):
        assert not any(breaks_rule(p) for p in albert.pieces(ids))
        # The rule splits pieces; it never changes the text.
        assert sp.decode(ids) == sp.decode(sp.encode(text))


def test_comma_rule_adds_no_word_mark(tmp_path):
    # A vocabulary with pieces like "2,", which stand inside a word: what replaces them must too.
    draw = random.Random(0)
    numbered = [
        f"{draw.choice('abcdefgh')}{draw.choice('xyz')}2, w{draw.choice('pq')}31,"
        for _ in range(3000)
    ]
    train_tokenizer([" ".join(draw.sample(numbered, 6)) for _ in range(500)], tmp_path / "m", 42)
    tokenizer = load_tokenizer(tmp_path / "m")
    pieces = tokenizer.pieces(range(42))
    assert any(p[-2:] in ("2,", "1,") and p[0] != "▁" for p in pieces)
    for text in ("ax2, by2, wp31,", "hz2,2,31,"):
        found = tokenizer.pieces(tokenizer.encode(text))
        assert "".join(found) == "▁" + text.replace(" ", "▁")
        assert not any(len(p) > 1 and p[-1] == "," for p in found)


def test_batch_equals_one_by_one(albert, real_sentences):
    texts = ["", *real_sentences[:300], " ", "92000,"]
    batch = albert.encode_batch(texts)
    assert batch == [albert.encode(t) for t in texts]
    flat, lengths = albert.encode_flat(texts)
    assert flat.dtype == np.uint16
    assert lengths.tolist() == [len(ids) for ids in batch]
    assert flat.tolist() == [i for ids in batch for i in ids]


def test_decode_gives_back_normalised_text(albert):
    for text in ("The cat sat on the mat.", "A (small) house - with 2,000 windows"):
        assert albert.decode(albert.encode(text)) == normalize(text)


def test_offsets_point_at_the_pieces(albert, real_sentences):
    extra = [
        "  Ｈello  ①\u00a0ﬁne\t x² 92000, and ``quoted'' İstanbul e\u0301tude  ",
        "tail\u0301\u0302  ",
        "",
    ]
    for text in [*extra, *real_sentences]:
        ids, offsets = albert.encode_with_offsets(text)
        assert ids == albert.encode(text)
        assert len(offsets) == len(ids)
        end_before = 0
        for i, piece, (start, end) in zip(ids, albert.pieces(ids), offsets, strict=True):
            assert 0 <= start <= end <= len(text)
            if start >= end_before and i != UNK:  # else they share one original character
                plain = normalize(text[start:end])
                assert plain.startswith(piece.strip("▁")) or "…" in text[start:end]
                assert text[start:end] == text[start:end].strip() or piece == "▁"
            end_before = end
        covered = set()
        for start, end in offsets:
            covered.update(range(start, end))
        lost = "".join(c for i, c in enumerate(text) if i not in covered)
        assert not normalize(lost).strip(" \u200e\u200b\ufeff\u00ad")


def test_offsets_of_known_words(albert):
    text = "  Zoë  paid £1,500 — “naïvely”."
    ids, offsets = albert.encode_with_offsets(text)
    spans = [text[a:b] for a, b in offsets]
    joined = "".join(spans).replace(" ", "")
    assert joined == text.replace(" ", "")
    assert spans[albert.pieces(ids).index("▁paid")] == "paid"


def test_word_starts(albert):
    pieces = albert.pieces(range(albert.vocab_size))
    starts = albert.word_starts
    assert starts.dtype == bool
    assert starts.shape == (albert.vocab_size,)
    assert starts[:NUM_SPECIAL].all()
    for piece, start in zip(pieces[NUM_SPECIAL:], starts[NUM_SPECIAL:], strict=True):
        if piece.startswith("▁"):
            assert start
        elif piece.isascii():
            assert start != piece.isalpha()
    assert not starts[pieces.index("ing")]
    assert starts[pieces.index("'")]


def test_every_piece_of_a_script_without_spaces_starts_a_word(tmp_path):
    train_tokenizer(["cats日本語の学校 sat学校の日本" for _ in range(200)], tmp_path / "m", 27)
    tokenizer = load_tokenizer(tmp_path / "m")
    ids = tokenizer.encode("cats日本語の学校")
    wide = [i for i, p in zip(ids, tokenizer.pieces(ids), strict=True) if p[-1] >= "\u3040"]
    assert any(not tokenizer.pieces([i])[0].startswith("▁") for i in wide)
    assert tokenizer.word_starts[wide].all()
    plain = [i for i, p in enumerate(tokenizer.pieces(range(27))) if p.isascii() and p.isalpha()]
    assert plain
    assert not tokenizer.word_starts[plain].any()


def test_the_words_of_a_script_with_vowel_signs_are_whole(tmp_path):
    words = ["हिन्दी", "किताब", "विद्यालय", "में", "पढ़ती", "लड़की"]
    text = [" ".join(words[(i + j * j) % 6] for j in range(9)) for i in range(200)]
    train_tokenizer(text, tmp_path / "m", 38)
    tokenizer = load_tokenizer(tmp_path / "m")
    for word in words:
        starts = tokenizer.word_starts[tokenizer.encode(word)]
        assert starts.tolist() == [True] + [False] * (len(starts) - 1)


def test_many_quotes_are_normalised_with_offsets():
    text = "say ``yes'' and ''no``  now``` " * 2000
    plain, offsets = normalize_with_offsets(text)
    assert plain == normalize(text)
    assert len(offsets) == len(plain) + 1
    assert all(text[offsets[i]] in "`'" for i, char in enumerate(plain) if char == '"')


def test_training_is_reproducible_and_has_the_ids(small, tmp_path):
    train_tokenizer(iter(make_text(500)), tmp_path / "again.model", 50)
    assert (tmp_path / "again.model").read_bytes() == small.path.read_bytes()
    train_tokenizer(make_text(500, seed=1), tmp_path / "other.model", 50)
    assert (tmp_path / "other.model").read_bytes() != small.path.read_bytes()
    assert small.vocab_size == 50
    assert small.pieces(range(13)) == (
        ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "(", ")", '"', "-", ".", "–", "£", "€"]
    )
    text = "The dog ran over the house."
    assert small.decode(small.encode(text)) == normalize(text)


def test_training_keeps_sentences_too_long_for_sentencepiece(tmp_path):
    train_tokenizer([" ".join(make_text(2000))], tmp_path / "long.model", 50)
    tokenizer = load_tokenizer(tmp_path / "long.model")
    assert UNK not in tokenizer.encode("the dog ran over the river")


def test_small_vocabulary_splits_digits_and_commas_alike(small):
    ids = small.encode("ran 1,000 1999, and")
    assert "".join(small.pieces(ids)) == "▁ran▁1,000▁1999,▁and"
    assert not any(p[-1] == "," and len(p) > 1 for p in small.pieces(ids))


def test_errors_name_the_file_and_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.model: no such file"):
        load_tokenizer(tmp_path / "none.model")
    (tmp_path / "bad.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"bad\.model: not a SentencePiece model"):
        load_tokenizer(tmp_path / "bad.model")
    (tmp_path / "empty.model").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.model"):
        load_tokenizer(tmp_path / "empty.model")
    with pytest.raises(ValueError, match="vocab_size 5000: this text has too few"):
        train_tokenizer(make_text(50), tmp_path / "x.model", 5000)
    for size in (3, 1 << 25):
        with pytest.raises(ValueError, match=f"vocab_size {size}: must be from"):
            train_tokenizer(make_text(50), tmp_path / "x.model", size)
    with pytest.raises(ValueError, match="cannot train"):
        train_tokenizer([], tmp_path / "x.model", 50)
    assert not (tmp_path / "x.model").exists()


@pytest.mark.parametrize("mask", ["", "[MASK]"])
def test_special_ids_come_from_the_vocabulary(tmp_path, mask):
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(make_text(200)),
        model_prefix=str(tmp_path / "plain"),
        vocab_size=50,
        unk_id=2,
        bos_id=0,
        eos_id=-1,
        pad_id=6,
        control_symbols=[piece for piece in ("[SEP]", mask, "[CLS]") if piece],
        minloglevel=2,
    )
    if not mask:
        with pytest.raises(ValueError, match=r"has no piece \[MASK\]; ALBERT needs <pad>, <unk>"):
            load_tokenizer(tmp_path / "plain.model")
        return
    tokenizer = load_tokenizer(tmp_path / "plain.model")
    found = tokenizer.pieces(tokenizer.special)
    assert found == ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.special.unk == 2
    assert not tokenizer.is_text[list(tokenizer.special)].any()
