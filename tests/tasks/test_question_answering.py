"""Contexts as windows of pieces: nothing is lost, and the answer is where the labels say."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from support.examples import examples
from support.feature_texts import NO_PIECE, TEXTS, contents
from support.pieces import UNK
from support.texts import WORDS

from albert_jax.data.tokenizers import Tokenizer, load_tokenizer
from albert_jax.data.tokenizers.rules import normalize
from albert_jax.tasks.examples import NOT_FOUND, Answer, QuestionExample
from albert_jax.tasks.features import NONE, length_of, stack
from albert_jax.tasks.question_answering import question_features
from albert_jax.tasks.readers.squad import read_squad
from albert_jax.tasks.squad_metrics import squad_metrics

MANY = examples(300)
FEW = examples(150)


@pytest.fixture(scope="module")
def small(vocabulary) -> Tokenizer:
    return load_tokenizer(vocabulary)


@pytest.fixture(scope="module")
def albert(shared_data) -> Tokenizer:
    return load_tokenizer(shared_data / "albert_vocab" / "30k-clean.model")


def windows_of_the_original(length, room, stride):
    """(first piece, number of pieces) as squad_utils.py steps through a paragraph."""
    spans, at = [], 0
    while at < length:
        spans.append((at, min(room, length - at)))
        if sum(spans[-1]) == length:
            break
        at += min(spans[-1][1], stride)
    return spans or [(0, 0)]  # we keep a row of an empty one, so that every question has one


@MANY
@given(TEXTS, TEXTS, st.data())
def test_windows_and_the_place_of_the_answer(small, context, question, data):
    begin = data.draw(st.integers(0, max(len(context) - 1, 0)))
    end = data.draw(st.integers(begin + 1, begin + 12))
    answers = (Answer("elsewhere", NOT_FOUND), Answer(context[begin:end], begin))[
        : 1 + len(context)
    ]
    end = min(end, len(context))
    max_question, room = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))
    stride = data.draw(st.integers(1, 50))
    asked = small.encode(question)[:max_question]
    example = QuestionExample("0", "", context, question, answers)
    rows, owners, notes, _ = question_features(
        [example], small, room + 3 + len(asked), stride, max_question
    )
    ids, offsets = small.encode_with_offsets(context)
    overlapping = [
        i
        for i, o in enumerate(offsets)
        if set(range(*o)) & set(range(begin, end)) and context[slice(*o)].strip()
    ]
    windows = windows_of_the_original(len(ids), room, stride)
    assert len(rows) == len(windows) == len(owners)
    for row, (first, count) in zip(rows, windows, strict=True):
        assert contents(row) == (asked, ids[first : first + count] or None)
        pairs = list(zip(row["begins"].tolist(), row["ends"].tolist(), strict=True))
        slot = len(asked) + 2
        assert set(pairs[:slot] + pairs[slot + count :]) == {(NONE, NONE)}
        for pair, place in zip(pairs[slot:], offsets[first : first + count], strict=False):
            assert pair == (place if context[slice(*place)].strip() else (NONE, NONE))
        is_inside = overlapping and first <= overlapping[0] and overlapping[-1] < first + count
        if not is_inside:
            assert (row["start"], row["end"]) == (0, 0)
            continue
        b, e = row["start"], row["end"]
        assert plain(context[begin:end]) in plain(context[row["begins"][b] : row["ends"][e]])
        # ... and no piece more than it takes
        assert [s - len(asked) - 2 + first for s in (b, e)] == [overlapping[0], overlapping[-1]]
    cut = len(small.encode(question)) > max_question
    assert notes == {"questions cut": cut, "answers not found": not overlapping}


def plain(text):
    """A text's letters as the vocabulary sees them."""
    return "".join(c for c in normalize(text) if c not in NO_PIECE and not c.isspace())


@FEW
@given(TEXTS)
def test_a_piece_stands_for_its_characters(small, context):
    (row,), _, _, _ = question_features(
        [QuestionExample("0", "", context, "", ())], small, 400, 128, 64
    )
    for i, begin, end in zip(row["input_ids"], row["begins"], row["ends"], strict=True):
        if begin != NONE and i != UNK:
            (piece,) = small.pieces([i])
            assert piece.lstrip("▁") in normalize(context[begin:end])


def test_a_question_that_fills_the_row_is_refused(small):
    question = " ".join(WORDS[:10])
    example = QuestionExample("q7", "", "mor tan", question, ())
    size = len(small.encode(question))
    with pytest.raises(ValueError, match=rf"task\.max_length={size + 3} .*'q7' of {size} tokens"):
        question_features([example], small, size + 3, 128, size)
    assert len(question_features([example], small, size + 4, 128, size).rows) > 1
    assert length_of(question_features([example], small, size + 3, 128, size - 1).rows[0]) > size


def test_white_space_about_an_answer_does_not_lose_it(small):
    for context, start, text in ((" mor tan", 0, " mor"), ("mor tan  ", 4, "tan  ")):
        example = QuestionExample("0", "", context, "sil", (Answer(text, start),))
        (row,), _, _, _ = question_features([example], small, 64, 16, 64)
        assert context[row["begins"][row["start"]] : row["ends"][row["end"]]] == text.strip()


@pytest.mark.slow
def test_squad_as_it_is(albert, shared_data):
    examples = read_squad(str(shared_data / "squad" / "dev-v2.0-cs224n.json"))
    rows, owners, notes, _ = question_features(examples, albert, 384, 128, 64)
    found, begins = {}, {}
    for row, owner in zip(rows, owners, strict=True):
        begins.setdefault(owner, set()).update(row["begins"].tolist())
        if row["end"]:
            begin, end = row["begins"][row["start"]], row["ends"][row["end"]]
            found.setdefault(examples[owner].id, examples[owner].context[begin:end])
    answerable = [e._replace(answers=e.answers[:1]) for e in examples if e.answers]
    assert found.keys() == {e.id for e in answerable}
    assert all(e.answers[0].text in found[e.id] for e in answerable)
    # The other two are "Japan" in "Japanese", which is one piece.
    assert squad_metrics(found, answerable)["exact"] == pytest.approx(2908 / 2910)
    for owner, characters in begins.items():
        context = examples[owner].context
        _, offsets = albert.encode_with_offsets(context)
        places = {begin for begin, end in offsets if context[begin:end].strip()}
        assert places == characters - {NONE}
    assert notes == {"questions cut": 0, "answers not found": 0}
    assert len(rows) == 6398


def test_rows_are_padded_with_what_stands_on_padding(small):
    example = QuestionExample("0", "", "mor tan", "sil", (Answer("tan", 4),))
    (row,), _, _, _ = question_features([example], small, 64, 16, 64)
    for name, value in (("input_ids", 0), ("attention_mask", 0), ("begins", NONE), ("ends", NONE)):
        stacked = stack([row[name]], name, 64)
        assert stacked.dtype == np.int32
        assert set(stacked[0, length_of(row) :].tolist()) == {value}
        assert stacked[0, : length_of(row)].tolist() == row[name].tolist()
    assert stack([row["start"], row["end"]], "start").shape == (2,)
