"""WordPiece against transformers: ids, offsets, Chinese ALBERTs, BERT both ways."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import nnx
from safetensors.numpy import load_file
from support.tiny_runs import tiny_run

import albert_jax
from albert_jax.checkpoints.formats.huggingface import read_hf, write_hf
from albert_jax.checkpoints.weights import Weights
from albert_jax.convert import main as convert_command
from albert_jax.data.row_reader import open_rows
from albert_jax.data.tokenizers import TextRules, Vocabulary, load_tokenizer
from albert_jax.inspect import main as inspect_command
from albert_jax.model.albert import abstract_model
from albert_jax.prepare.pipeline import prepare

pytestmark = [pytest.mark.torch, pytest.mark.slow]

CHINESE, ENGLISH = "chinese_21128_vocab.txt", "english_uncased_30522_vocab.txt"
ODD = (
    "emoji 👩\u200d👩\u200d👧 🇩🇪 ❤️",
    "control \x00\x01\x7f\u200b\u200d\ufeff\u00ad",
    "tab\tnew\nline\r\u2028\x85",
    "x" * 100,
    "x" * 101,
    "ä" * 250,
    "naïve Straße İstanbul ŠĐ",
    "が ｶﾞ 한국어 조선",
    "ภาษาไทย เป็น",
    "मैं हिन्दी बोलता हूँ",
    "العَرَبِيَّة",
    "a\u0301\u0302b",
    "½ ㎏ ﬁ",
    "[MASK",
    "##ab ## #",
    "\ud7ff\uffff",
    "𠀀𪛖 㐀",
    "",
    "don't-stop…¿?¡!",
    "「日本」、『語』。",
    "１２３ＡＢＣ",
)


@pytest.fixture(scope="module")
def wordpiece(shared_data: Path) -> Path:
    return shared_data / "wordpiece"


@pytest.fixture(scope="module")
def mixed_lines(shared_data: Path) -> list[str]:
    """10,000 lines of German, Japanese, Chinese, English and Hindi, and odd ones mixed in."""
    folder = shared_data / "multilingual"
    lines = [
        line
        for name in ("de.txt", "ja.txt", "zh.txt")
        for line in (folder / name).read_text("utf-8").split("\n")
        if line.strip()
    ]
    lines += (shared_data / "multi30k" / "val.en").read_text("utf-8").split("\n")
    draw = random.Random(0)
    draw.shuffle(lines)
    found = [*ODD, *lines[:8000]]
    while len(found) < 10_000:
        found.append(" ".join(draw.sample(ODD, 2)) + draw.choice(lines)[:40] + draw.choice(ODD))
    return found


OPTIONS = ({}, {"do_lower_case": False}, {"strip_accents": False})


def their_tokenizer(file: Path, **options: Any) -> Any:
    return transformers.BertTokenizer(vocab=str(file), **options)


@pytest.mark.parametrize("name", [CHINESE, ENGLISH])
@pytest.mark.parametrize(
    "options", [{}, {"do_lower_case": False}, {"strip_accents": False}], ids=str
)
def test_ids_and_offsets_of_10000_lines(name, options, wordpiece, mixed_lines, tmp_path):
    shutil.copy(wordpiece / name, tmp_path / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(options))
    ours, theirs = load_tokenizer(tmp_path), their_tokenizer(wordpiece / name, **options)
    ids = ours.encode_batch(mixed_lines)
    expected = theirs(mixed_lines, add_special_tokens=False, return_offsets_mapping=True)
    assert ids == expected["input_ids"]
    for line, own, offsets in zip(mixed_lines, ids, expected["offset_mapping"], strict=True):
        found, spans = ours.encode_with_offsets(line)
        assert found == own
        assert [tuple(span) for span in spans] == [tuple(span) for span in offsets]


@pytest.mark.parametrize("name", [CHINESE, ENGLISH])
def test_written_tokenizers_read_alike(name, wordpiece, mixed_lines, tmp_path):
    rules = TextRules(do_lower_case=False, keep_accents=True)
    config = {"vocab_size": load_tokenizer(wordpiece / name).vocab_size, **SMALL}
    model = transformers.AlbertForPreTraining(transformers.AlbertConfig(**config))
    model.save_pretrained(tmp_path / "theirs")
    weights = read_hf(tmp_path / "theirs")
    vocabulary = Vocabulary("wordpiece", (wordpiece / name).read_bytes(), rules)
    write_hf(weights._replace(vocabulary=vocabulary), tmp_path / "ours")
    assert read_hf(tmp_path / "ours").vocabulary == vocabulary
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    ours = load_tokenizer(tmp_path / "ours" / "vocab.txt")
    assert theirs(mixed_lines[:2000], add_special_tokens=False)["input_ids"] == ours.encode_batch(
        mixed_lines[:2000]
    )
    pair = theirs("今天 hello", "天气")
    special = ours.special
    first, second = ours.encode("今天 hello"), ours.encode("天气")
    assert pair["input_ids"] == [special.cls, *first, special.sep, *second, special.sep]
    assert pair["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    # transformers writes it again, and tokenizer.json alone is enough.
    theirs.save_pretrained(tmp_path / "again")
    for unused in ("vocab.txt",):
        (tmp_path / "again" / unused).unlink(missing_ok=True)
    shutil.copy(tmp_path / "ours" / "config.json", tmp_path / "again")
    shutil.copy(tmp_path / "ours" / "model.safetensors", tmp_path / "again")
    assert read_hf(tmp_path / "again").vocabulary == vocabulary


SMALL: dict[str, Any] = {
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
# Source: the config.json of voidful/albert_chinese_tiny and its like, and of ckiplab's.
SHAPES = {
    "tiny": (312, 4, 12, 1248, "gelu"),
    "small": (384, 6, 12, 1536, "gelu"),
    "base": (768, 12, 12, 3072, "relu"),
    "large": (1024, 24, 16, 4096, "relu"),
    "xlarge": (2048, 24, 16, 8192, "relu"),
    "xxlarge": (4096, 12, 16, 16384, "relu"),
}
LARGE = [pytest.param(name, marks=pytest.mark.nightly) for name in ("xlarge", "xxlarge")]


@pytest.mark.parametrize("shape", ["tiny", "small", "base", "large", *LARGE])
def test_chinese_alberts_of_each_published_shape(shape, wordpiece, tmp_path):
    hidden, layers, heads, inner, act = SHAPES[shape]
    config = transformers.AlbertConfig(
        vocab_size=21128, embedding_size=128, hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=heads, intermediate_size=inner, hidden_act=act,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.AlbertForMaskedLM(config).eval()
    theirs.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["architectures"]
    values |= {"bos_token_id": 2, "eos_token_id": 3}  # as published, although [CLS] is 101
    (tmp_path / "config.json").write_text(json.dumps(values))
    shutil.copy(wordpiece / CHINESE, tmp_path / "vocab.txt")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    ours = albert_jax.load(tmp_path)
    text = "今天[MASK]情很好。"
    tokenizer = transformers.BertTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        output = theirs(**inputs, output_hidden_states=True)
    encoded = ours([text])
    np.testing.assert_array_equal(encoded.input_ids, inputs["input_ids"])
    for mine, their in zip(encoded.hidden_states, output.hidden_states, strict=True):
        np.testing.assert_allclose(mine, their, atol=1e-5)
    logits = output.logits[0, 3].softmax(-1)
    (filled,) = ours.fill_mask(text, top_k=5)
    for candidate in filled:
        assert candidate.probability == pytest.approx(float(logits[candidate.id]), abs=1e-5)
        assert candidate.piece == tokenizer.convert_ids_to_tokens(candidate.id)
    assert filled[0].id == int(logits.argmax())
    # Exported, it is the same model, with the right special ids.
    weights = read_hf(tmp_path)
    assert weights.kind == "masked_lm"
    write_hf(weights, tmp_path / "out")
    written = transformers.AlbertForMaskedLM.from_pretrained(tmp_path / "out").eval()
    assert (written.config.bos_token_id, written.config.eos_token_id) == (101, 102)
    with torch.no_grad():
        np.testing.assert_array_equal(written(**inputs).logits, output.logits)


ENDS = ("ForPreTraining", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification",
        "ForQuestionAnswering", "ForMultipleChoice", "Model")  # fmt: skip


@pytest.mark.parametrize("end", ENDS)
def test_bert_both_ways_is_bit_identical(end, wordpiece, tmp_path):
    values = {name: size for name, size in SMALL.items() if name != "embedding_size"}
    config = transformers.BertConfig(vocab_size=30522, **values)
    cls = getattr(transformers, f"Bert{end}")
    torch.manual_seed(0)
    theirs = cls(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    shutil.copy(wordpiece / ENGLISH, tmp_path / "theirs" / "vocab.txt")
    (tmp_path / "theirs" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    weights = read_hf(tmp_path / "theirs")
    write_hf(weights, tmp_path / "ours")
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("theirs", "ours"))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    again, info = cls.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    inputs = tokenizer("a bert of our own", "and a pair", return_tensors="pt")
    if end == "ForMultipleChoice":
        inputs = {name: tensor[None] for name, tensor in inputs.items()}
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs)[0], theirs(**inputs)[0])
    assert_same_hidden_states(weights, again, inputs)


def assert_same_hidden_states(weights: Weights, theirs: Any, inputs: Any) -> None:
    ids, types, mask = (
        jnp.asarray(inputs[name].numpy()).reshape(1, -1)
        for name in ("input_ids", "token_type_ids", "attention_mask")
    )
    graphdef, _ = nnx.split(abstract_model(weights.config, weights.params), nnx.Param)
    params = jax.tree.map(jnp.asarray, weights.params)
    positions = jnp.arange(ids.shape[1])[None]
    ours = nnx.merge(graphdef, params)(ids, types, positions, mask).last_hidden_state
    with torch.no_grad():
        bare = getattr(theirs, "bert", theirs)
        their = bare(*(torch.from_numpy(np.array(x)) for x in (ids, mask, types)))[0]
    np.testing.assert_allclose(ours, their, atol=1e-5)


BASELINE = {"embedding_size": 32, "share": "none"}  # of 32 wide, and so BERT's shape


@pytest.mark.parametrize(
    ("name", "text", "model"),
    [
        (CHINESE, "zh.txt", {"hidden_act": "relu"}),
        (ENGLISH, "de.txt", BASELINE | {"hidden_act": "gelu"}),
    ],
    ids=["albert", "bert"],
)
def test_from_text_to_transformers(name, text, model, wordpiece, tmp_path):
    """prepare, train, convert and load there: the same ids and the same logits."""
    corpus = tmp_path / "text.txt"
    whole = (wordpiece.parent / "multilingual" / text).read_text("utf-8")
    corpus.write_text(whole[: whole.index("</doc>", 60_000) + 7], "utf-8")
    (tmp_path / "vocab").mkdir()
    shutil.copy(wordpiece / name, tmp_path / "vocab" / "vocab.txt")
    (tmp_path / "vocab" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    manifest = prepare(
        [corpus], tmp_path / "rows", tokenizer=tmp_path / "vocab" / "vocab.txt", seq_len=64,
        validation_fraction=0.2, num_workers=1,
    )  # fmt: skip
    sizes = {"vocab_size": manifest["vocab_size"]} | model
    run = tiny_run(tmp_path / "rows", tmp_path / "run", model=sizes, train={"num_steps": 4})
    assert (run / "vocab.txt").read_bytes() == (wordpiece / name).read_bytes()
    ours = albert_jax.load(run)
    convert = ["--input", str(run), "--output", str(tmp_path / "hf"), "--to", "hf"]
    assert convert_command(convert) == 0
    theirs = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "hf").eval()
    kind = "Bert" if "share" in model else "Albert"
    assert type(theirs).__name__ == f"{kind}ForPreTraining"
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    line = "今天[MASK]情很好, play football"
    inputs = tokenizer(line, return_tensors="pt")
    encoded = ours([line])
    np.testing.assert_array_equal(encoded.input_ids, inputs["input_ids"])
    with torch.no_grad():
        output = theirs(**inputs)
    (filled,) = ours.fill_mask(line, top_k=20)
    expected = output.prediction_logits[0, encoded.input_ids[0].tolist().index(103)].softmax(-1)
    for candidate in filled:
        assert candidate.probability == pytest.approx(float(expected[candidate.id]), abs=1e-5)
    again = read_hf(tmp_path / "hf")
    assert again.config == ours.config
    assert again.vocabulary == ours.tokenizer.vocabulary


def test_two_hundred_thousand_pieces(tmp_path):
    """Ids of 32 bits through prepare, train, inspect and convert."""
    count = 200_000
    (tmp_path / "vocab").mkdir()
    words = [f"w{i}" for i in range(count - 5)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (tmp_path / "vocab" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (tmp_path / "vocab" / "tokenizer_config.json").write_text("{}")
    draw = random.Random(0)
    documents = [
        ". ".join(" ".join(draw.choices(words[-90_000:], k=9)) for _ in range(9)) + "."
        for _ in range(60)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in documents))
    manifest = prepare(
        [tmp_path / "a.jsonl"], tmp_path / "rows", tokenizer=tmp_path / "vocab" / "vocab.txt",
        seq_len=64, validation_fraction=0.2, num_workers=1,
    )  # fmt: skip
    stored = open_rows(tmp_path / "rows", "train")[0]["pieces"]
    assert stored.dtype == np.uint32
    assert stored.max() > 65_535
    assert manifest["vocab_size"] == count
    sizes = {"vocab_size": count, "embedding_size": 4}
    run = tiny_run(tmp_path / "rows", tmp_path / "run", model=sizes, train={"num_steps": 3})
    assert inspect_command(["--workdir", str(run), "--step", "1"]) == 0
    assert (
        convert_command(["--input", str(run), "--output", str(tmp_path / "hf"), "--to", "hf"]) == 0
    )
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    ours = albert_jax.load(tmp_path / "hf").tokenizer
    text = f"{words[-1]} {words[70_000]} x"
    assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.encode(text) == [count - 1, 70_005, 1]
