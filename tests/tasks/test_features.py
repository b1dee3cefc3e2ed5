"""Examples as rows of ids: what is cut, split, marked and counted, and what is never lost."""

from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from support.examples import examples
from support.feature_texts import TEXTS, contents
from support.pieces import CLS, SEP, SPECIAL, UNK
from support.texts import WORDS

from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.tasks.classification import text_features
from albert_jax.tasks.examples import ChoiceExample, TaggedExample, TextExample
from albert_jax.tasks.features import NONE, join, length_of, total_notes
from albert_jax.tasks.multiple_choice import choice_features
from albert_jax.tasks.readers.conll import read_conll
from albert_jax.tasks.readers.race import read_race
from albert_jax.tasks.token_classification import tag_features

IDS = st.lists(st.integers(5, 59), max_size=30)
MANY = examples(300)
FEW = examples(150)


@pytest.fixture(scope="module")
def small(vocabulary) -> Tokenizer:
    return load_tokenizer(vocabulary)


@pytest.fixture(scope="module")
def albert(shared_data) -> Tokenizer:
    return load_tokenizer(shared_data / "albert_vocab" / "30k-clean.model")


@MANY
@given(IDS, IDS, st.integers(1, 70))
def test_join_cuts_the_longer_until_both_fit(first, second, max_length):
    parts = [part for part in (first, second) if part]
    if max_length < 2 + bool(second) + len(parts):
        with pytest.raises(ValueError, match=rf"task\.max_length={max_length} leaves no room"):
            join(SPECIAL, first, second, max_length)
        return
    row, is_cut = join(SPECIAL, first, second, max_length)
    kept, kept_second = contents(row)
    assert (kept_second is None) == (not second)
    kept_second = kept_second or []
    assert kept == first[: len(kept)]
    assert kept_second == second[: len(kept_second)]
    assert is_cut == (kept + kept_second != first + second)
    assert length_of(row) == min(max_length, len(first) + len(second) + (3 if second else 2))
    # What was cut was the longer, piece by piece: it is now as long as the other, or one longer.
    if len(kept) < len(first):
        assert len(kept) >= len(kept_second)
    if len(kept_second) < len(second):
        assert len(kept_second) >= len(kept) - 1
    if len(kept) < len(first) and len(kept_second) < len(second):
        assert abs(len(kept) - len(kept_second)) <= 1


def test_the_error_of_join_names_the_least_length():
    with pytest.raises(ValueError, match="at least 5"):
        join(SPECIAL, [7], [8], 4)
    assert length_of(join(SPECIAL, [7], [8], 5)[0]) == 5
    assert length_of(join(SPECIAL, [], [], 2)[0]) == 2


def test_texts_pairs_and_labels(small):
    text = " ".join(WORDS[:10])
    ids = small.encode(text)
    examples = [
        TextExample("0", text, None, 2),
        TextExample("1", text, "moring", 2.0),
        TextExample("2", text, "", None),
        TextExample("3", text, text, np.float64(0.5)),
        TextExample("4", "", "", 0),
    ]
    rows, owners, notes, _ = text_features(examples, small, len(ids) + 6)
    assert contents(rows[0]) == contents(rows[2]) == (ids, None)
    assert contents(rows[1]) == (ids, small.encode("moring"))
    assert length_of(rows[3]) == len(ids) + 6
    assert rows[4]["input_ids"].tolist() == [CLS, SEP]
    kinds = [rows[i]["label"].dtype for i in (0, 1, 3, 4)]
    assert kinds == [np.int32, np.float32, np.float32, np.int32]
    assert rows[0]["label"] == 2
    assert rows[3]["label"] == 0.5
    assert "label" not in rows[2]
    assert owners.tolist() == [0, 1, 2, 3, 4]
    assert notes == {"texts cut": 1}
    assert text_features([], small, 512).rows == []


@FEW
@given(TEXTS, TEXTS, st.lists(TEXTS, min_size=2, max_size=4), st.integers(4, 90))
def test_a_choice_loses_its_context_first(small, context, question, options, max_length):
    example = ChoiceExample("0", context, question.replace("_", ""), tuple(options), 1)
    (row,), owners, notes, _ = choice_features([example], small, max_length)
    assert (owners.tolist(), row["label"].dtype) == ([0], np.int32)
    whole = small.encode(context)
    contexts_cut = options_cut = 0
    for i, option in enumerate(options):
        ending = small.encode(f"{question} {option}")
        count = int(row["attention_mask"][i].sum())
        assert count <= max_length
        part = {name: row[name][i, :count] for name in row if name != "label"}
        assert not any(row[name][i, count:].any() for name in part)
        kept, kept_ending = contents(part)
        kept_ending = kept_ending or []
        assert kept == whole[: len(kept)]
        if len(ending) + bool(whole) <= max_length - 3:
            assert kept_ending == ending
        else:
            options_cut += 1
            assert kept_ending == ending[-len(kept_ending) :]  # an option is what stands last
            assert len(kept) <= 1
        if len(kept) < len(whole):
            contexts_cut = 1
            assert count == max_length - (not ending)
    assert notes == {"contexts cut": contexts_cut, "options cut": options_cut}


def test_an_option_fills_the_gaps(small):
    def endings(question):
        example = ChoiceExample("0", "", question, ("mor", "tan ing"), None)
        (row,), _, _, _ = choice_features([example], small, 64)
        return [[int(i) for i in part if i not in (0, CLS, SEP)] for part in row["input_ids"]]

    for question, first, second in (
        ("sil _ bur", "sil mor bur", "sil tan ing bur"),
        ("sil_.", "sil mor.", "sil tan ing."),
        ("sil _bur", "sil mor bur", "sil tan ing bur"),
        ("___ sil _", "mor sil mor", "tan ing sil tan ing"),
        ("sil?", "sil? mor", "sil? tan ing"),
        ("_", "mor", "tan ing"),
    ):
        assert endings(question) == small.encode_batch([first, second]), question


def test_race_as_it_is(albert, shared_data):
    examples = read_race("race", str(shared_data / "race")).splits["validation"]
    rows, _, notes, _ = choice_features(examples, albert, 512)
    assert max(map(length_of, rows)) == 512
    assert {row["input_ids"].shape[0] for row in rows} == {4}
    assert notes == {"contexts cut": 210, "options cut": 0}


TAGGED = st.lists(
    st.one_of(st.sampled_from([*WORDS, "mor" * 9, "😀", "\x00", "\u200b\u200b", "\u0301"]), TEXTS),
    max_size=12,
)


@MANY
@given(st.lists(TAGGED, max_size=3), st.integers(3, 40), st.booleans())
def test_every_word_has_one_slot(small, sentences, max_length, has_tags):
    examples = [
        TaggedExample(str(i), tuple(words), tuple(range(len(words))) if has_tags else None)
        for i, words in enumerate(sentences)
    ]
    rows, owners, notes, _ = tag_features(examples, small, max_length)
    found = [[] for _ in sentences]
    cut = 0
    for row, owner in zip(rows, owners, strict=True):
        assert length_of(row) <= max_length
        ids, second = contents(row)
        assert second is None
        slots = np.flatnonzero(row["words"] != NONE)
        words = row["words"][slots].tolist()
        assert row["tags"][slots].tolist() == (words if has_tags else [NONE] * len(words))
        assert np.all(row["tags"][row["words"] == NONE] == NONE)
        # From a word's slot to the next word's are its pieces, whole unless it is alone.
        expected = [small.encode(sentences[owner][word]) or [UNK] for word in words]
        parts = [part.tolist() for part in np.split(np.array(ids, int), slots[1:] - 1)]
        if parts != expected:
            assert expected[0][: max_length - 2] == parts[0]
            assert len(parts) == 1
            cut += 1
        found[owner] += words
    assert found == [list(range(len(words))) for words in sentences]
    split = sum(count > 1 for count in Counter(owners.tolist()).values())
    assert notes == {"sentences split": split, "words cut": cut}


@pytest.mark.slow
def test_conll_as_it_is(albert, shared_data):
    data = read_conll("conll2003", str(shared_data / "conll2003")).splits
    for split, max_length, words in (
        ("train", 512, 203_621),
        ("validation", 512, 51_362),
        ("validation", 32, 51_362),
    ):
        rows, owners, notes, _ = tag_features(data[split], albert, max_length)
        seen = {(int(o), int(w)) for o, r in zip(owners, rows, strict=True) for w in r["words"]}
        expected = {(i, w) for i, e in enumerate(data[split]) for w in range(len(e.words))}
        assert {pair for pair in seen if pair[1] != NONE} == expected
        assert sum(int((row["words"] != NONE).sum()) for row in rows) == words
        assert sum(int((row["tags"] != NONE).sum()) for row in rows) == words
        lengths = [sum(map(len, albert.encode_batch(e.words))) for e in data[split]]
        too_long = sum(length > max_length - 2 for length in lengths)
        assert notes == {"sentences split": too_long, "words cut": 0}
        assert bool(too_long) == (max_length == 32)


def test_notes_add_up(small):
    long = TextExample("0", " ".join(WORDS), None, 0)
    features = text_features([long, long], small, 16)
    assert total_notes([features, features]) == {"texts cut": 4}
    assert total_notes([text_features([], small, 16)]) == {}
