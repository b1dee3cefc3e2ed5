"""Rows hold every sentence of their documents once, whole, as consecutive text."""

import collections
import itertools
import random

import numpy as np
import pytest
from support.texts import VOCAB_SIZE, make_sentence

from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.data.tokenizers.rules import normalize
from albert_jax.prepare.row_builder import (
    NumberedDocument,
    RowBuilder,
    cut_sentence,
    split_sentences,
)
from albert_jax.prepare.settings import RowSettings


def test_cut_sentence():
    starts = np.array([1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1], bool)
    parts = cut_sentence(starts, 4)
    assert parts == [3, 2, 4, 4]
    assert cut_sentence(np.ones(9, bool), 4) == [4, 4, 1]
    assert cut_sentence(np.zeros(9, bool), 4) == [4, 4, 1]
    assert cut_sentence(np.ones(4, bool), 4) == [4]


def test_split_sentences_drops_only_space(shared_data):
    lines = (shared_data / "wikipedia" / "enwiki_00.txt").read_text("utf-8").split("\n")
    paragraphs = [x for x in lines if x and not x.startswith("<")][:1000]
    sentences = split_sentences(paragraphs)
    assert len(sentences) > 2000
    assert all(s and s == s.strip() for s in sentences)
    assert "".join(" ".join(sentences).split()) == "".join(" ".join(paragraphs).split())
    assert split_sentences(["One. Two.", "Three\n\nFour."])[:2] == ["One.", "Two."]


def chunks_of(row):
    """Yields (document, [sentence ids, ...]) of each chunk."""
    sentences = np.split(row["pieces"], np.cumsum(row["sentence_lengths"])[:-1].astype(int))
    bounds = [0, *np.cumsum(row["chunk_sentences"]).tolist()]
    for number, (a, b) in zip(row["chunk_documents"], itertools.pairwise(bounds), strict=True):
        yield int(number), [s.tolist() for s in sentences[a:b]]


@pytest.fixture(scope="module")
def model_file(vocabulary):
    return str(vocabulary)


def make_documents(count, seed=0):
    draw = random.Random(seed)
    return [
        NumberedDocument(
            3 * i + 1, draw.getrandbits(64),
            [
                " ".join(make_sentence(draw, 1, 25) for _ in range(draw.randint(1, 5)))
                for _ in range(i % 13 + 1)
            ],
            False,
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("packing", [True, False])
def test_rows_decode_to_the_documents(model_file, packing):
    documents = make_documents(60)
    tokenizer = load_tokenizer(model_file)
    settings = RowSettings(64, packing)
    rows, counts = RowBuilder(model_file, settings)(documents)
    found = collections.defaultdict(collections.Counter)
    sentences_found = collections.defaultdict(collections.Counter)
    for row in rows:
        assert row["pieces"].dtype == row["sentence_lengths"].dtype == np.uint16
        assert row["chunk_sentences"].dtype == np.uint16
        assert row["chunk_documents"].dtype == np.uint64
        assert row["sentence_lengths"].sum() == len(row["pieces"])
        assert row["chunk_sentences"].sum() == len(row["sentence_lengths"])
        assert len(row["chunk_documents"]) == len(row["chunk_sentences"])
        assert len(row["pieces"]) + 3 * len(row["chunk_documents"]) <= 64
        for number, sentences in chunks_of(row):
            sentences_found[number].update(map(tokenizer.decode, sentences))
            for ids in sentences:
                found[number].update(ids)
    assert found.keys() == {d.number for d in documents}
    for document in documents:
        expected = split_sentences(document.paragraphs)
        encoded = tokenizer.encode_batch(expected)
        assert found[document.number] == collections.Counter(itertools.chain(*encoded))
        if max(map(len, encoded)) <= 61:
            expected = collections.Counter(map(normalize, expected))
            assert sentences_found[document.number] == expected
    pieces = np.concatenate([row["pieces"] for row in rows])
    assert (counts.rows, counts.pieces) == (len(rows), len(pieces))
    assert counts.used_slots == len(pieces) + 3 * sum(len(r["chunk_documents"]) for r in rows)
    assert np.array_equal(counts.histogram, np.bincount(pieces, minlength=VOCAB_SIZE))


def test_each_chunk_is_consecutive_text_of_its_document(model_file):
    documents = make_documents(60)
    tokenizer = load_tokenizer(model_file)

    def squeezed(texts):  # a sentence cut in two loses the space in between
        return "".join(texts).replace(" ", "")

    texts = {d.number: squeezed(map(normalize, d.paragraphs)) for d in documents}
    rows, _ = RowBuilder(model_file, RowSettings(64))(documents)
    for row in rows:
        for number, sentences in chunks_of(row):
            assert squeezed(map(tokenizer.decode, sentences)) in texts[number]


def test_long_and_empty_sentences_are_counted(model_file):
    documents = [
        NumberedDocument(0, 1, ["moring " * 100, "\u0301", "taned"], True),
        NumberedDocument(1, 2, ["\u0301"], True),
        NumberedDocument(2, 3, ["z" * 50 + "ing" * 100], True),
    ]
    rows, counts = RowBuilder(model_file, RowSettings(32))(documents)
    assert (counts.sentences_split, counts.empty_sentences) == (2, 2)
    tokenizer = load_tokenizer(model_file)
    total = sum(map(len, tokenizer.encode_batch([p for d in documents for p in d.paragraphs])))
    assert counts.pieces == total
    starts = tokenizer.word_starts
    for row in rows:
        for number, sentences in chunks_of(row):
            if number == 0:
                assert all(starts[s[0]] for s in sentences)
            assert number != 1
            assert sum(map(len, sentences)) <= 29


def test_no_text_at_all(model_file):
    document = NumberedDocument(0, 1, ["\u0301"], False)
    rows, counts = RowBuilder(model_file, RowSettings(32))([document])
    assert (rows, counts.rows, counts.pieces, counts.empty_sentences) == ([], 0, 0, 1)


@pytest.mark.parametrize(("seq_len", "least"), [(512, 0.99), (128, 0.97)])
def test_wikipedia_fills_its_rows(shared_data, seq_len, least):
    text = (shared_data / "wikipedia" / "enwiki_01.txt").read_text("utf-8")
    documents = [
        NumberedDocument(i, i * 0x9E3779B97F4A7C15 % 2**64, article.split("\n")[1:-1], False)
        for i, article in enumerate(text.split("<doc ")[1:400])
    ]
    model = shared_data / "albert_vocab" / "30k-clean.model"
    rows, counts = RowBuilder(str(model), RowSettings(seq_len))(documents)
    assert counts.used_slots / (len(rows) * seq_len) >= least


def test_the_documents_decide_not_their_numbers(model_file):
    documents = make_documents(30)
    renumbered = [d._replace(number=d.number + 100) for d in documents]
    builder = RowBuilder(model_file, RowSettings(64))
    one, two = builder(documents)[0], builder(renumbered)[0]
    assert [r["pieces"].tolist() for r in one] == [r["pieces"].tolist() for r in two]
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a["chunk_documents"] + 100, b["chunk_documents"])
