"""Inputs that nobody would think of: what holds for all, and errors of one kind only."""

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.models import tiny_model
from support.params import equal_trees, random_params
from support.pieces import CLS, NUM_SPECIAL, SEP, SPECIAL, UNK, english, table_of

from albert_jax.checkpoints.formats.hf_tokenizer import read_tokenizer
from albert_jax.checkpoints.formats.huggingface import read_hf, write_hf
from albert_jax.checkpoints.formats.sentencepiece import parse_model
from albert_jax.checkpoints.formats.variables import check_grouping, external_groups
from albert_jax.checkpoints.weights import Weights
from albert_jax.config import ModelConfig
from albert_jax.data.masking import mask, ngram_cdf, num_slots
from albert_jax.data.row_format import CHUNK_OVERHEAD
from albert_jax.data.sentence_pairs import choose_pairs, lay_out
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer, tokenizer_of
from albert_jax.data.tokenizers.rules import normalize
from albert_jax.model.heads import KINDS
from albert_jax.prepare.formats import FORMATS, format_of, read_items
from albert_jax.prepare.packing import SentenceRange, pack
from albert_jax.prepare.row_builder import NumberedDocument, RowBuilder
from albert_jax.prepare.settings import RowSettings


def fuzz(nightly: int, by_day: int = 25) -> settings:
    checks = [HealthCheck.function_scoped_fixture]
    return settings(examples(nightly, by_day), suppress_health_check=checks)


fuzzed, fuzzed_briefly = fuzz(150), fuzz(40)
fuzzed_slowly = fuzz(12, by_day=3)  # each compiles shapes of its own

# Letters of the vocabulary, and what text rules trip over: marks, ligatures, wide and odd spaces,
# controls, quotes, digits before commas, characters outside the basic plane.
CHARS = st.one_of(
    st.sampled_from("mortansilburkelvendorpaxlunrit"),
    st.sampled_from(" \t\n\r\0\x07\u00a0\u2028\u3000\u200b\ufeff\u0301\u0345ßſİıΣςﬁ①½"),
    st.sampled_from("`'\",.()-–£€0123456789▁Å中あ한\U0001f600\U000e0fff\uffff"),
    st.characters(exclude_categories=["Cs"]),
)
TEXTS = st.text(CHARS, max_size=80)


def refusal(call: Callable[[], Any]) -> str:
    """What a call refuses its input with, as users' errors are told; empty where it does not."""
    try:
        call()
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def tokenizer(vocabulary) -> Tokenizer:
    return load_tokenizer(vocabulary)


# ---- the tokenizer ----


@fuzzed
@given(text=TEXTS)
def test_any_text_has_ids_and_offsets(tokenizer, text):
    ids, offsets = tokenizer.encode_with_offsets(text)
    assert ids == tokenizer.encode(text)
    assert all(0 < i < tokenizer.vocab_size and i not in (CLS, SEP) for i in ids)
    assert len(offsets) == len(ids)
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    starts = [start for start, _ in offsets]
    assert starts == sorted(starts)


@fuzzed
@given(text=TEXTS)
def test_what_was_decoded_is_encoded_alike(tokenizer, text):
    ids = [i for i in tokenizer.encode(text) if i != UNK]  # which stands for any unknown text
    plain = normalize(tokenizer.decode(ids))  # two spaces may have stood about an unknown one
    assert tokenizer.decode(tokenizer.encode(plain)) == plain


@fuzzed
@given(text=TEXTS)
def test_a_normalised_text_has_the_same_pieces(tokenizer, text):
    # Twice, as a letter may be made of characters that were none.
    plain = normalize(normalize(text))
    assert normalize(plain) == plain
    assert tokenizer.encode(normalize(text)) == tokenizer.encode(text)


@fuzzed_briefly
@given(texts=st.lists(TEXTS, max_size=6))
def test_texts_do_not_touch_one_another(tokenizer, texts):
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@fuzzed_briefly
@given(data=st.binary(max_size=300), keep=st.integers(0, 3000))
def test_any_bytes_are_a_vocabulary_or_refused(tokenizer, tmp_path, data, keep):
    for proto in (data, tokenizer.vocabulary.contents[:keep] + data):
        said = refusal(lambda proto=proto: tokenizer_of(english(proto), "x.model"))
        assert not said or "x.model" in said
        refusal(lambda proto=proto: parse_model(proto))


# ---- readers of corpora ----

LINES = st.one_of(
    st.binary(max_size=60),
    TEXTS.map(lambda text: text.encode()),
    TEXTS.map(lambda text: json.dumps({"text": text}).encode()),
    st.sampled_from(
        [
            b"",
            b'{"text": 3}',
            b"[[[",
            b"<doc id=1>",
            b"</doc>",
            b"---",
            b"# Title: x",
            b"\xef\xbb\xbf",
        ]
    ),
)
FILES = st.lists(LINES, max_size=8).map(b"\n".join)
NAMES = st.sampled_from(
    ["a", "a.txt", "a.md", "a.jsonl", "a.txt.gz", "a.jsonl.zst", "a.gz", "a.csv"]
)


@fuzzed
@given(data=FILES, name=NAMES, file_format=st.sampled_from(FORMATS), damage=st.integers(0, 99))
def test_any_bytes_are_documents_or_an_error_that_names_the_file(data, name, file_format, damage):
    if name.endswith(".gz") and damage % 3:
        data = gzip.compress(data, mtime=0)
    if name.endswith(".zst") and damage % 3:
        data = zstandard.compress(data)
    if damage > 80:
        data = data[: len(data) * damage // 100]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / name)
        Path(path).write_bytes(data)
        items: list[str | None] = []

        def read() -> None:
            known = format_of(path) if file_format == "auto" else file_format
            items.extend(read_items(io.BytesIO(data), path, known, "text"))

        said = refusal(read)
    assert not said or (said.startswith(path) and "\n" not in said)
    assert all(item is None or (item.strip() and "\n" not in item) for item in items)


@fuzzed_briefly
@given(documents=st.lists(st.lists(TEXTS.filter(str.strip), min_size=1, max_size=4), max_size=6),
       seq_len=st.sampled_from([16, 32, 64]), packing=st.booleans())  # fmt: skip
def test_any_documents_become_rows_of_all_their_pieces(tokenizer, documents, seq_len, packing):
    build = RowBuilder(str(tokenizer.path), RowSettings(seq_len, packing))
    numbered = [NumberedDocument(i, 7 * i, d, True) for i, d in enumerate(documents)]
    rows, counts = build(numbered)
    found: dict[int, list[int]] = {i: [] for i in range(len(documents))}
    for row in rows:
        ends = np.cumsum(row["sentence_lengths"], dtype=int)
        ends = ends[np.cumsum(row["chunk_sentences"], dtype=int) - 1]
        parts = np.split(row["pieces"], ends[:-1])
        assert len(row["pieces"]) + CHUNK_OVERHEAD * len(parts) <= seq_len
        for number, part in zip(row["chunk_documents"].tolist(), parts, strict=True):
            found[number] += part.tolist()
    wanted = [[i for text in d for i in tokenizer.encode(text)] for d in documents]
    # Chunks of a document may lie in rows in any order.
    assert [sorted(found[i]) for i in found] == [sorted(ids) for ids in wanted]
    assert counts.pieces == sum(map(len, wanted))


# ---- packing, pairs, masks ----


@st.composite
def chunk_rows(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """A row of any sentence lengths, some of its pieces unknown ones."""
    chunks = draw(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6),
                           min_size=1, max_size=5))  # fmt: skip
    lengths = [n for chunk in chunks for n in chunk]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pieces = rng.integers(NUM_SPECIAL, 100, sum(lengths))
    pieces[rng.random(len(pieces)) < draw(st.sampled_from([0, 0.3, 1]))] = UNK
    return {
        "pieces": pieces.astype(np.uint16),
        "sentence_lengths": np.array(lengths, np.uint16),
        "chunk_sentences": np.array([len(c) for c in chunks], np.uint16),
        "chunk_documents": np.arange(len(chunks), dtype=np.uint64),
    }


OBJECTIVES = st.sampled_from(["sop", "nsp", "none"])
OTHER = {
    "pieces": np.full(9, 99, np.uint16),
    "sentence_lengths": np.array([4, 5], np.uint16),
    "chunk_sentences": np.array([2], np.uint16),
    "chunk_documents": np.array([1000], np.uint64),
}


@fuzzed
@given(row=chunk_rows(), objective=OBJECTIVES, seed=st.integers(0, 2**32))
def test_pairs_keep_their_pieces_and_their_labels_are_true(row, objective, seed):
    pairs = choose_pairs(row, objective, np.random.default_rng(seed), [OTHER])
    ends = np.cumsum(row["sentence_lengths"], dtype=int)
    last = np.cumsum(row["chunk_sentences"], dtype=int) - 1
    chunks = np.split(row["pieces"], ends[last][:-1])
    assert len(pairs) == len(chunks)
    layout = lay_out([pairs], SPECIAL)
    for i, (pair, pieces) in enumerate(zip(pairs, chunks, strict=True)):
        a = pair.a.pieces.tolist()
        b = [] if pair.b is None else pair.b.pieces.tolist()
        original = pieces.tolist()
        if objective == "sop" or not pair.label:
            assert (b + a if pair.label else a + b) == original
        else:  # the second segment is another document's
            assert a == original[: len(a)]
            assert b
            assert set(b) == {99}
            assert len(a) + len(b) <= len(original)
        if objective == "none" or row["chunk_sentences"][i] == 1:
            assert (pair.b, pair.label, layout.sentence_weights[i]) == (None, 0, 0)
        assert len(a) + len(b) + 2 + bool(b) == np.sum(layout.segment_ids == i + 1)


@fuzzed
@given(row=chunk_rows(), objective=OBJECTIVES, seed=st.integers(0, 2**32),
       rate=st.floats(0.01, 1), max_ngram=st.integers(1, 5),
       starts=st.sampled_from([0.1, 0.5, 1.0]))  # fmt: skip
def test_any_layout_can_be_masked_and_unmasked(row, objective, seed, rate, max_ngram, starts):
    rng = np.random.default_rng(seed)
    layout = lay_out([choose_pairs(row, objective, rng, [OTHER])], SPECIAL)
    word_starts = rng.random(100) < starts
    capacity = num_slots(len(layout.input_ids), rate)
    masked = mask(layout, table_of(word_starts), rate, capacity, ngram_cdf(max_ngram), [rng])
    positions = masked.positions
    assert len(positions) == len(masked.labels) <= capacity
    assert np.array_equal(positions, np.unique(positions))
    restored = masked.input_ids.copy()
    restored[positions] = masked.labels
    assert np.array_equal(restored, layout.input_ids)
    assert (masked.labels >= NUM_SPECIAL).all()
    maskable = np.sum(layout.input_ids >= NUM_SPECIAL)
    # Whole n-grams of whole words: at most one n-gram beyond the share that is asked for.
    longest_word = 12
    assert len(positions) <= max(1, rate * maskable) + max_ngram * longest_word
    if rate == 1 and starts == 1:
        assert len(positions) == min(maskable, capacity)


@fuzzed
@given(lengths=st.lists(st.lists(st.integers(1, 61), max_size=12), max_size=10),
       seq_len=st.just(64), packing=st.booleans(), seed=st.integers(-(2**63), 2**63 - 1),
       short=st.floats(0, 1))  # fmt: skip
def test_packing_keeps_each_sentence_once_within_its_rows(lengths, seq_len, packing, seed, short):
    flat = [n for own in lengths for n in own]
    ends = np.cumsum([0, *flat]).tolist()
    firsts = np.cumsum([0, *map(len, lengths)]).tolist()
    runs = [SentenceRange(i, firsts[i], firsts[i + 1]) for i in range(len(lengths))]
    row_settings = RowSettings(seq_len, packing, short, seed)
    rows = pack(ends, runs, [hash((seed, i)) % 2**64 for i in range(len(runs))], row_settings)
    assert sorted(s for row in rows for c in row for s in range(c.first, c.last)) == list(
        range(len(flat))
    )
    for row in rows:
        assert 1 <= len(row) <= row_settings.max_chunks
        assert sum(ends[c.last] - ends[c.first] + CHUNK_OVERHEAD for c in row) <= seq_len
        for c in row:
            assert runs[c.owner].first <= c.first < c.last <= runs[c.owner].last


# ---- converters ----


@st.composite
def model_configs(draw: st.DrawFn) -> ModelConfig:
    """Small models of all kinds that transformers has too."""
    heads = draw(st.sampled_from([1, 2, 4]))
    layers = draw(st.integers(1, 4))
    config = tiny_model(
        vocab_size=draw(st.integers(6, 40)),
        embedding_size=draw(st.sampled_from([4, 8, 16])),
        hidden_size=heads * draw(st.sampled_from([2, 4])),
        num_attention_heads=heads,
        num_hidden_layers=layers,
        num_hidden_groups=draw(st.integers(1, layers)),
        inner_group_num=draw(st.integers(1, 2)),
        intermediate_size=draw(st.integers(1, 20)),
        max_position_embeddings=draw(st.integers(1, 20)),
        hidden_act=draw(st.sampled_from(["gelu_new", "gelu", "relu", "silu", "tanh"])),
        layer_norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
        share=draw(st.sampled_from(["all", "none"])),
    )
    groups = len(external_groups(config))
    theirs = [int(i / (layers / groups)) for i in range(layers)]
    try:
        check_grouping(config, theirs, "transformers")
    except ValueError:
        assume(False)
    return config


# A pair of models, for translation, has tests of its own.
ONE_MODEL = sorted(KINDS.keys() - {"translation"})


@fuzzed_slowly
@given(config=model_configs(), kind=st.sampled_from(ONE_MODEL), seed=st.integers(0, 999))
def test_any_model_comes_back_from_transformers_to_the_bit(config, kind, seed):
    params = random_params(config, KINDS[kind], num_labels=3, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        write_hf(Weights(config, params, kind), Path(folder))
        weights = read_hf(Path(folder))
    assert weights.config == config
    assert weights.kind == kind
    assert equal_trees(weights.params, params)


@pytest.fixture(scope="module")
def hf_files(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("hf")
    model = tiny_model(vocab_size=tokenizer.vocab_size, num_hidden_layers=1)
    params = random_params(model, KINDS["classification"])
    labels = ("bad", "good")
    write_hf(Weights(model, params, "classification", tokenizer.vocabulary, labels=labels), folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)  # fmt: skip


def refused_or_read(files: dict[str, bytes], read: Any) -> str:
    """Reads a directory of these files; what it is refused with, if it is, names the place."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        said = refusal(lambda: read(Path(folder)))
        assert not said or folder in said
    return said


@fuzz(80)
@given(data=st.data())
def test_any_setting_of_transformers_is_read_or_refused(hf_files, data):
    values = json.loads(hf_files["config.json"])
    name = data.draw(st.sampled_from([*sorted(values), "albert_jax", "is_decoder"]))
    values[name] = data.draw(JSON | st.just(...))
    values = {key: value for key, value in values.items() if value is not ...}
    refused_or_read(hf_files | {"config.json": json.dumps(values).encode()}, read_hf)


@fuzz(80)
@given(name=st.sampled_from(["config.json", "model.safetensors", "spiece.model", "tokenizer.json",
                             "tokenizer_config.json"]),
       at=st.integers(0, 2000), new=st.binary(max_size=20), lost=st.integers(0, 400))  # fmt: skip
def test_any_damage_is_read_or_refused(hf_files, name, at, new, lost):
    content = hf_files[name]
    at %= len(content)
    damaged = hf_files | {name: content[:at] + new + content[at + lost :]}
    if name == "tokenizer.json":
        del damaged["spiece.model"]
    refused_or_read(damaged, read_hf)


@fuzzed_briefly
@given(data=st.binary(max_size=200), size=st.integers(0, 2**63 - 1))
def test_any_header_of_safetensors_is_refused(hf_files, data, size):
    for content in (
        data,
        size.to_bytes(8, "little") + data,
        len(data).to_bytes(8, "little") + data,
    ):
        assert refused_or_read(hf_files | {"model.safetensors": content}, read_hf)


@fuzzed_briefly
@given(data=st.data())
def test_any_tokenizer_json_is_read_or_refused(hf_files, data):
    values = json.loads(hf_files["tokenizer.json"])
    name = data.draw(st.sampled_from(sorted(values)))
    values[name] = data.draw(JSON)
    files = {"tokenizer.json": json.dumps(values).encode()}
    refused_or_read(files, read_tokenizer)
