"""Rows hold every sentence once, whole, in chunks that fit, and are well filled."""

import collections
import itertools
import random

import numpy as np
import pytest

from albert_jax.data import rows as rows_module
from albert_jax.data.rows import (
    CHUNK_OVERHEAD,
    NumberedDocument,
    RowBuilder,
    RowSettings,
    Run,
    chunk_end,
    cut_sentence,
    features,
    max_chunks,
    pack,
    serialize,
    split_sentences,
    target_length,
)
from albert_jax.tokenizer import Tokenizer, normalize, train_tokenizer


def random_block(seed, seq_len, documents):
    """Returns (ends, runs, digests) of random sentences."""
    draw = random.Random(seed)
    lengths, runs = [], []
    for i in range(documents):
        first = len(lengths)
        count = draw.choice([0, 1, 2, 30, 300])
        lengths += [
            min(seq_len - CHUNK_OVERHEAD, 1 + int(draw.expovariate(1 / 20))) for _ in range(count)
        ]
        runs.append(Run(i, first, len(lengths)))
    ends = list(itertools.accumulate(lengths, initial=0))
    return ends, runs, [draw.getrandbits(64) for _ in runs]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("seq_len", [16, 64, 512])
def test_pack_keeps_every_sentence_once_and_fits(seq_len, packing):
    for seed in range(10):
        ends, runs, digests = random_block(seed, seq_len, 40)
        settings = RowSettings(seq_len, packing)
        rows = pack(ends, runs, digests, settings)
        assert rows == pack(ends, runs, digests, settings)
        sentences = [s for row in rows for c in row for s in range(c.first, c.last)]
        assert sorted(sentences) == list(range(len(ends) - 1))
        for row in rows:
            used = sum(ends[c.last] - ends[c.first] + CHUNK_OVERHEAD for c in row)
            assert used <= seq_len
            assert len(row) <= (max_chunks(seq_len) if packing else 1)
            for c in row:
                assert c.first < c.last
                assert runs[c.owner].first <= c.first
                assert c.last <= runs[c.owner].last


def test_packing_fills_rows_that_chunks_alone_leave_open():
    ends, runs, digests = random_block(0, 128, 100)
    fill = {}
    for packing in (True, False):
        rows = pack(ends, runs, digests, RowSettings(128, packing))
        used = ends[-1] + CHUNK_OVERHEAD * sum(map(len, rows))
        fill[packing] = used / (128 * len(rows))
    assert fill[True] > 0.95 > 0.85 > fill[False]


def test_many_tiny_documents_share_rows():
    count = 1000
    ends = list(range(0, 5 * count + 1, 5))
    runs = [Run(i, i, i + 1) for i in range(count)]
    rows = pack(ends, runs, list(range(count)), RowSettings(64))
    assert {len(row) for row in rows[:-1]} == {max_chunks(64)}
    big = pack(ends, runs, list(range(count)), RowSettings(512))
    assert {len(row) for row in big[:-1]} == {max_chunks(512)}


def test_chunk_end():
    ends = [0, 10, 20, 30, 40]
    assert chunk_end(ends, 0, 4, target=30, limit=30) == 3
    assert chunk_end(ends, 0, 4, target=29, limit=29) == 2
    assert chunk_end(ends, 0, 4, target=11, limit=30) == 2
    assert chunk_end(ends, 0, 4, target=2, limit=30) == 1
    assert chunk_end(ends, 1, 3, target=99, limit=99) == 3
    assert chunk_end(ends, 3, 4, target=10, limit=10) == 4


def test_target_lengths_are_drawn_as_the_paper_says():
    settings = RowSettings(100, short_seq_prob=0.25)
    drawn = np.array([target_length(d, s, settings) for d in range(100) for s in range(100)])
    short = drawn[drawn < 97]
    assert abs(len(short) / len(drawn) - 0.25 * 95 / 96) < 0.015
    assert short.min() == 2
    assert abs(short.mean() - 49) < 2
    assert {target_length(1, s, RowSettings(100, short_seq_prob=0)) for s in range(99)} == {97}
    other = RowSettings(100, short_seq_prob=0.25, seed=1)
    assert any(target_length(0, s, settings) != target_length(0, s, other) for s in range(99))
    always = RowSettings(100, short_seq_prob=1)
    assert {target_length(0, s, always) for s in range(5000)} == set(range(2, 98))


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


@pytest.mark.parametrize(
    "options", [{"seq_len": 15}, {"seq_len": 70_000}, {"short_seq_prob": 1.5}]
)
def test_settings_out_of_range(options):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=f"{name} {value}: must be from"):
        RowSettings(**options)


def parse(record):
    decoded = features().deserialize_example_np(record)
    return {name: decoded[name] for name in features()}


def chunks_of(row):
    """Yields (document, [sentence ids, ...]) of each chunk."""
    sentences = np.split(row["pieces"], np.cumsum(row["sentence_lengths"])[:-1].astype(int))
    bounds = [0, *np.cumsum(row["chunk_sentences"]).tolist()]
    for number, (a, b) in zip(row["chunk_documents"], itertools.pairwise(bounds), strict=True):
        yield int(number), [s.tolist() for s in sentences[a:b]]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "small.model"
    draw = random.Random(0)
    words = [
        a + b
        for a in ["mor", "tan", "sil", "bur", "kel"]
        for b in ["ing", "ed", "er", "est", "ly"]
    ]
    train_tokenizer([" ".join(draw.choices(words, k=9)) + "." for _ in range(500)], path, 40)
    return str(path)


def make_documents(count, seed=0):
    draw = random.Random(seed)
    words = [
        a + b
        for a in ["mor", "tan", "sil", "bur", "kel"]
        for b in ["ing", "ed", "er", "est", "ly"]
    ]

    def sentence():
        return " ".join(draw.choices(words, k=draw.randint(1, 25))).capitalize() + "."

    return [
        NumberedDocument(
            3 * i + 1, draw.getrandbits(64),
            [" ".join(sentence() for _ in range(draw.randint(1, 5))) for _ in range(i % 13 + 1)],
            False,
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("packing", [True, False])
def test_rows_decode_to_the_documents(model_file, packing):
    documents = make_documents(60)
    tokenizer = Tokenizer(model_file)
    settings = RowSettings(64, packing)
    block = RowBuilder(model_file, settings)(documents)
    parsed = [parse(r) for r in block.rows]
    found = collections.defaultdict(collections.Counter)
    sentences_found = collections.defaultdict(collections.Counter)
    for row in parsed:
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
    pieces = np.concatenate([row["pieces"] for row in parsed])
    assert block.pieces == len(pieces)
    assert block.used_slots == len(pieces) + 3 * sum(len(r["chunk_documents"]) for r in parsed)
    assert np.array_equal(block.histogram, np.bincount(pieces, minlength=40))


def test_each_chunk_is_consecutive_text_of_its_document(model_file):
    documents = make_documents(60)
    tokenizer = Tokenizer(model_file)

    def squeezed(texts):  # a sentence cut in two loses the space in between
        return "".join(texts).replace(" ", "")

    texts = {d.number: squeezed(map(normalize, d.paragraphs)) for d in documents}
    for record in RowBuilder(model_file, RowSettings(64))(documents).rows:
        for number, sentences in chunks_of(parse(record)):
            assert squeezed(map(tokenizer.decode, sentences)) in texts[number]


def test_long_and_empty_sentences_are_counted(model_file):
    documents = [
        NumberedDocument(0, 1, ["moring " * 100, "\u0301", "taned"], True),
        NumberedDocument(1, 2, ["\u0301"], True),
        NumberedDocument(2, 3, ["z" * 50 + "ing" * 100], True),
    ]
    block = RowBuilder(model_file, RowSettings(32))(documents)
    assert (block.sentences_split, block.empty_sentences) == (2, 2)
    tokenizer = Tokenizer(model_file)
    total = sum(map(len, tokenizer.encode_batch([p for d in documents for p in d.paragraphs])))
    assert block.pieces == total
    starts = tokenizer.word_starts
    for record in block.rows:
        for number, sentences in chunks_of(parse(record)):
            if number == 0:
                assert all(starts[s[0]] for s in sentences)
            assert number != 1
            assert sum(map(len, sentences)) <= 29


def test_no_text_at_all(model_file):
    block = RowBuilder(model_file, RowSettings(32))([NumberedDocument(0, 1, ["\u0301"], False)])
    assert block.rows == []
    assert block.pieces == 0


def test_serialize_is_what_tfds_writes():
    row = {
        "pieces": np.array([5, 6, 40_000], np.uint16),
        "sentence_lengths": np.array([1, 2], np.uint16),
        "chunk_sentences": np.array([1, 1], np.uint16),
        "chunk_documents": np.array([7, 2**63 + 1], np.uint64),
    }
    from tensorflow_datasets.proto import tf_example_pb2

    read = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
    assert read(serialize(row)) == read(features().serialize_example(row))
    assert serialize(row) == serialize(dict(reversed(row.items())))
    for name, values in parse(serialize(row)).items():
        assert values.dtype == row[name].dtype
        assert np.array_equal(values, row[name])


@pytest.mark.parametrize(("seq_len", "least"), [(512, 0.99), (128, 0.97)])
def test_wikipedia_fills_its_rows(shared_data, seq_len, least):
    text = (shared_data / "wikipedia" / "enwiki_01.txt").read_text("utf-8")
    documents = [
        NumberedDocument(i, i * 0x9E3779B97F4A7C15 % 2**64, article.split("\n")[1:-1], False)
        for i, article in enumerate(text.split("<doc ")[1:400])
    ]
    model = shared_data / "albert_vocab" / "30k-clean.model"
    block = RowBuilder(str(model), RowSettings(seq_len))(documents)
    assert block.used_slots / (len(block.rows) * seq_len) >= least


def test_the_documents_decide_not_their_numbers(model_file, monkeypatch):
    documents = make_documents(30)
    renumbered = [d._replace(number=d.number + 100) for d in documents]
    one, two = (RowBuilder(model_file, RowSettings(64))(d) for d in (documents, renumbered))
    assert [parse(r)["pieces"].tolist() for r in one.rows] == [
        parse(r)["pieces"].tolist() for r in two.rows
    ]
    monkeypatch.setattr(rows_module, "ROWS_PER_STRAND", 1)
    strands = RowBuilder(model_file, RowSettings(64))(documents)
    assert strands.pieces == one.pieces
