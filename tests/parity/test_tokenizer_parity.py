"""Our ids and offsets against the original's and transformers', on real text and odd cases.

The original's ids must be ours on every text. transformers goes other ways here and there:
`Explainer` knows them, and every difference must come out of it to the last id.
"""

import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.other_tokenizers import Explainer, original_ids, original_text
from support.pieces import UNK, english, train_tokenizer
from transformers import AlbertTokenizer

from albert_jax.checkpoints.formats.hf_tokenizer import write_tokenizer
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.data.tokenizers.rules import normalize

pytestmark = [pytest.mark.torch, pytest.mark.slow]

FOLDERS = ["wikipedia", "books", "glue", "cola", "multi30k", "squad", "race", "conll2003"]
QUOTES = ("``", "''")

# A text, and why transformers gives it other ids.
ODD = {
    "": [],
    " \t\r\n\u3000": [],
    "Café NAÏVE Ångström e\u0301\u0327 ﬁne ﬃ ﬆ Ǆ ½ … x² ①": [],
    "日本語の学校 中文字 한국어 العربية": [],
    "Ｆｕｌｌ　Ｗｉｄｔｈ １２，３４５，": [],
    "İstanbul ıI Straße ẞ ΟΔΟΣ ΣΑΣ, Σ": [],
    "`` he '' \" ‘ ’ “ ” ``` ''' ''''\u2033 ＂ ｀｀ ′′": [],
    "9,000 in 9, she 1,234,567, 9,9,9, 1999, ٣, ²,": [],
    "11,419 and 1,050": ["comma"],
    'U.S. (so) - a–b £5 €6 ((.)) -- ... "-"': [],
    "a▁b ▁ c▁ ▁▁": [],
    "a\u00adb a\u200bb a\ufeffb a\ufffdb a\x00b a\x7fb a\u2060b": [],
    "a\u0085b a\u00a0b a\u1680b a\u2009b a\u2028b a\u2029b a\u202fb a\u3000b a\x0cb": [],
    "a\x0bb a\x1cb a\x1db a\x1eb a\x1fb": ["space"],
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪": [],
    "a ❤️ b": [],  # both make of heart and mark one unknown piece
    "1️⃣ and a\ufe0fb": ["mark"],
    "की": [],  # likewise
    "aीb": ["mark"],
    "it is [MASK] and[MASK]ed [CLS] <pad> <unk>. [SEP]": ["special"],
    "[mask] <PAD>s [cls] x<UNK>y": ["piece"],
    "\ua7f2 \U0001fbf3": ["unicode"],
}


@pytest.fixture(scope="module")
def proto(shared_data) -> bytes:
    return (shared_data / "albert_vocab" / "30k-clean.model").read_bytes()


@pytest.fixture(scope="module")
def ours(shared_data) -> Tokenizer:
    return load_tokenizer(shared_data / "albert_vocab" / "30k-clean.model")


@pytest.fixture(scope="module")
def explainer(proto) -> Explainer:
    return Explainer(proto)


@pytest.fixture(scope="module")
def fast(proto, tmp_path_factory):
    return load_fast(proto, tmp_path_factory.mktemp("albert"))


def load_fast(proto: bytes, directory: Path):
    write_tokenizer(english(proto), directory)
    return AlbertTokenizer.from_pretrained(directory).backend_tokenizer


def fast_encode(fast, texts: list[str]) -> list:
    return fast.encode_batch(texts, add_special_tokens=False)


def strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        named = value.items() if isinstance(value, dict) else enumerate(value)
        yield from (s for name, item in named if name != "id" for s in strings(item))


def read_texts(path: Path) -> Iterator[str]:
    """The lines of a file of the data folder; of task data the texts in them."""
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        yield from strings(json.loads(text))
    elif path.suffix == ".jsonl":
        yield from (s for line in text.splitlines() for s in strings(json.loads(line)))
    elif path.suffix == ".tsv":
        yield from (field for line in text.split("\n") for field in line.split("\t"))
    elif path.name.startswith("eng."):  # a word a line, an empty line after a sentence
        for block in text.split("\n\n"):
            yield " ".join(line.split()[0] for line in block.splitlines() if line)
    else:
        yield from text.split("\n")


def corpora(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each corpus with its texts, the repeated ones left out."""
    for name in FOLDERS:
        files = sorted(p for p in (folder / name).rglob("*") if p.is_file())
        yield name, list(dict.fromkeys(text for p in files for text in read_texts(p)))


def sample(texts: list[str]) -> list[str]:
    return random.Random(0).sample(texts, len(texts) // 100)


def check_original(ours: Tokenizer, explainer: Explainer, texts: list[str]) -> None:
    found = ours.encode_batch(texts)
    others = original_ids(explainer.plain, [original_text(t) for t in texts])
    for text, a, b in zip(texts, found, others, strict=True):
        assert a == b, text


def differences(ours: Tokenizer, explainer: Explainer, fast, texts: list[str]) -> Counter:
    """How many texts get other ids from transformers, by what it takes to explain them."""
    found = Counter()
    others = fast.encode_batch_fast(texts, add_special_tokens=False)
    for text, a, b in zip(texts, ours.encode_batch(texts), others, strict=True):
        if a != b.ids:
            kinds = explainer.kinds(text, b.ids)
            assert kinds, text
            assert "unexplained" not in kinds, text
            found["+".join(kinds)] += 1
    return found


def offset_kind(text: str, piece: str, a: tuple[int, int], b: tuple[int, int]) -> str:
    """Why transformers' offsets `b` of a piece are not ours, `a`."""
    skipped = 1 if text[a[1] : a[1] + 2] in QUOTES else 0
    if piece == "▁" and b[0] == a[1] + skipped and not text[slice(*a)].strip():
        return "lone ▁"  # it takes the next character, we the space before
    if piece == '"' and text[slice(*a)] in QUOTES and b == (a[0] + 1, a[1]):
        return "two quotes"  # it takes the second, we both
    rest = text[b[1] : a[1]]
    if a[0] == b[0] and rest and all(unicodedata.category(c)[0] == "M" for c in rest):
        return "mark"  # it drops them, also those that the original keeps
    return "unexplained"


def check_offsets(ours: Tokenizer, fast, texts: list[str]) -> Counter:
    """Compares the offsets of texts with equal ids; counts pieces by kind of difference."""
    found = Counter()
    for text, other in zip(texts, fast_encode(fast, texts), strict=True):
        ids, offsets = ours.encode_with_offsets(text)
        for piece, i, a in zip(ours.pieces(ids), ids, offsets, strict=True):
            plain, word = normalize(text[slice(*a)]), piece.lstrip("▁")
            # A character that stands for several (½) may give some of them to other pieces.
            assert plain == word or i == UNK or (word in plain and len(plain) > a[1] - a[0]), text
        if ids != other.ids:
            continue
        for piece, a, b in zip(ours.pieces(ids), offsets, other.offsets, strict=True):
            kind = "equal" if a == b else offset_kind(text, piece, a, b)
            assert kind != "unexplained", (text, piece, a, b)
            found[kind] += 1
    return found


def test_odd_texts(ours, explainer, fast):
    check_original(ours, explainer, list(ODD))
    for text, other in zip(ODD, fast_encode(fast, list(ODD)), strict=True):
        kinds = explainer.kinds(text, other.ids)
        assert kinds == ODD[text], text
        assert (ours.encode(text) == other.ids) == (kinds == []), text


def test_a_wrong_id_is_not_explained(explainer, fast):
    for text, other in zip(ODD, fast_encode(fast, list(ODD)), strict=True):
        ids = other.ids
        for wrong in ([*ids, 25], [*ids, UNK], ids[1:], ids[::-1], [i + 1 for i in ids]):
            if wrong != ids:
                assert "unexplained" in explainer.kinds(text, wrong), text


def test_every_character(ours, explainer, fast):
    others = ("Cn", "Co", "Cs")  # unassigned, private, surrogates
    texts = [
        f"a{c}b {c} 9{c}, A{c}"
        for c in map(chr, range(0x110000))
        if unicodedata.category(c) not in others
        and not unicodedata.name(c, "").startswith("CJK UNIFIED")  # 90,000, all alike
    ]
    check_original(ours, explainer, texts)
    found = differences(ours, explainer, fast, texts)
    assert set(found) <= {"mark", "space", "unicode", "comma"}
    assert found["space"] == 5


@pytest.mark.slow
def test_megabyte_lines(ours, explainer, fast, shared_data):
    draw = random.Random(0)
    book = (shared_data / "wikipedia" / "enwiki_00.txt").read_text("utf-8").replace("\n", " ")
    texts = [
        book[:1_000_000],
        "9," * 500_000,
        "語" * 1_000_000,
        "a b" * 300_000 + " ",
        "".join(draw.choices("abcdefghij", k=1_000_000)),
    ]
    check_original(ours, explainer, texts)
    assert set(differences(ours, explainer, fast, texts)) <= {"comma", "tie", "comma+tie"}


def test_real_texts_sampled(ours, explainer, fast, shared_data):
    for _, texts in corpora(shared_data):
        texts = sample(texts)
        check_original(ours, explainer, texts)
        found = differences(ours, explainer, fast, texts)
        assert found.total() <= 0.001 * len(texts)
        offsets = check_offsets(ours, fast, texts)
        assert offsets["equal"] >= 0.85 * offsets.total()


@pytest.mark.slow
def test_all_real_texts_get_the_original_ids(ours, explainer, shared_data):
    for _, texts in corpora(shared_data):
        check_original(ours, explainer, texts)


@pytest.mark.slow
def test_all_real_texts_against_transformers(ours, explainer, fast, shared_data):
    for name, texts in corpora(shared_data):
        found = differences(ours, explainer, fast, texts)
        assert found.total() <= 0.0005 * len(texts)
        print(name, len(texts), "texts,", dict(found))


@pytest.mark.slow
def test_offsets_of_many_real_texts(ours, fast, shared_data):
    for name, texts in corpora(shared_data):
        found = check_offsets(ours, fast, texts[::16])
        print(name, found.total(), "pieces,", dict(found))


def test_a_vocabulary_of_our_own(tmp_path):
    # Greek for the final sigma, pieces like "2," inside and at the start of words.
    draw = random.Random(0)
    words = ["οδος", "σοδ", *(f"{a}{b}2," for a in "abc" for b in "xy"), "w31,", "(so)"]
    train_tokenizer([" ".join(draw.choices(words, k=9)) for _ in range(500)], tmp_path / "m", 37)
    ours = load_tokenizer(tmp_path / "m")
    proto = (tmp_path / "m").read_bytes()
    explainer, fast = Explainer(proto), load_fast(proto, tmp_path)
    texts = [" ".join(draw.choices(words, k=9)) for _ in range(300)]
    check_original(ours, explainer, texts)
    assert set(differences(ours, explainer, fast, texts)) <= {"comma", "tie", "comma+tie"}
    assert differences(ours, explainer, fast, ["ΣΟΔ ΟΔΟΣ"]) == {"sigma": 1}
