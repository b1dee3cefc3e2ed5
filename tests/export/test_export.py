"""Exports: the same outputs as the model, in every format; each weight once; what is refused."""

import json
import random
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import run
from support.finetuned import make_weights
from support.models import tiny_model
from support.texts import VOCAB_SIZE, make_sentence

import albert_jax
from albert_jax.checkpoints.formats.huggingface import write_hf
from albert_jax.data.tokenizers import Tokenizer, load_tokenizer, read_vocabulary
from albert_jax.export.__main__ import main
from albert_jax.export.write import write_export
from albert_jax.model.heads import KINDS
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.predict.program import TEXT, input_axes

TOLERANCE = {"stablehlo": 1e-5, "onnx": 1e-4}
FORMATS = tuple(TOLERANCE)
# Every way in which networks differ.
SHAPES = {
    "attention": {"share": "attention", "hidden_act": "gelu"},
    "ffn": {"share": "ffn", "hidden_act": "relu"},
    "none": {"share": "none", "hidden_act": "silu", "embedding_size": 32},
    "groups": {"num_hidden_layers": 5, "num_hidden_groups": 2, "hidden_act": "tanh"},
    "inner groups": {"inner_group_num": 2, "share": "none", "num_hidden_groups": 2},
}


@pytest.fixture(scope="module")
def tokenizer(vocabulary) -> Tokenizer:
    return load_tokenizer(vocabulary)


def exported(
    model: FinetunedModel, folder: Path, to: str, is_quantized: bool = False
) -> FinetunedModel:
    folder.mkdir()
    write_export(model, folder, to, is_quantized)
    return albert_jax.load(folder)


def model_of(kind: str, tokenizer: Tokenizer | None, **fields: Any) -> FinetunedModel:
    weights = make_weights(kind, **fields)
    return FinetunedModel(weights, weights.params, tokenizer)


def draw_batch(draw: np.random.Generator, model: FinetunedModel) -> dict[str, np.ndarray]:
    """Rows of drawn lengths, with padding, for a drawn number of rows, options and masks."""
    sizes = {
        "B": draw.integers(1, 6),
        "T": draw.integers(2, 65),
        "C": draw.integers(2, 5),
        "P": draw.integers(1, 7),
    }
    batch = {}
    for name, axes in input_axes(model.kind, model.heads).items():
        shape = tuple(sizes[axis] for axis in axes)
        most = {"input_ids": VOCAB_SIZE, "mlm_positions": sizes["T"]}.get(name, 2)
        batch[name] = draw.integers(0, most, shape).astype(np.int32)
    lengths = draw.integers(1, sizes["T"] + 1, (*batch["input_ids"].shape[:-1], 1))
    batch["attention_mask"] = (np.arange(sizes["T"]) < lengths).astype(np.int32)
    if "begins" in batch:
        batch["begins"] = np.where(batch["attention_mask"], batch["begins"] - 1, -1)
    if "mlm_positions" in batch:
        batch["mlm_positions"] %= lengths.astype(np.int32)  # what padding gives is not defined
    return batch


def program_of(model: FinetunedModel) -> Any:
    return model._program if model.kind in TASKS else model._encoder


def assert_same_outputs(
    ours: FinetunedModel, theirs: FinetunedModel, tolerance: float, batches: int = 4
) -> None:
    draw = np.random.default_rng(0)
    for _ in range(batches):
        batch = draw_batch(draw, ours)
        wanted, found = program_of(ours)(batch), program_of(theirs)(batch)
        assert found.keys() == wanted.keys() - {"hidden_states"}
        for name, array in found.items():
            assert array.shape == wanted[name].shape
            per_token = name in ("last_hidden_state", "log_probs")
            real = batch["attention_mask"] > 0 if per_token else ...
            np.testing.assert_allclose(array[real], wanted[name][real], atol=tolerance)


TASKS = ("classification", "multiple_choice", "token_classification", "question_answering")


# By day, those that differ most.
BY_DAY = ("pretraining", "multiple_choice")


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        pytest.param(kind, to, marks=[] if kind in BY_DAY or to == "onnx" else [pytest.mark.slow])
        for kind in KINDS
        if kind != "translation"
        for to in FORMATS
    ],
)
def test_outputs_are_the_models_at_any_batch_and_length(kind, to, tokenizer, tmp_path):
    model = model_of(kind, tokenizer)
    found = exported(model, tmp_path / "out", to)
    assert (found.kind, found.labels, found.heads) == (model.kind, model.labels, model.heads)
    assert_same_outputs(model, found, TOLERANCE[to])


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(name, marks=[] if name == "inner groups" else [pytest.mark.slow])
        for name in SHAPES
    ],
)
def test_onnx_has_every_network(shape, tokenizer, tmp_path):
    config = tiny_model(**{"vocab_size": VOCAB_SIZE, "num_hidden_layers": 4} | SHAPES[shape])
    model = model_of("pretraining", tokenizer, config=config)
    assert_same_outputs(model, exported(model, tmp_path / "out", "onnx"), TOLERANCE["onnx"])


@pytest.mark.parametrize("to", FORMATS)
def test_of_a_translation_model_the_encoder_is_exported(to, tokenizer, tmp_path):
    model = model_of("translation", tokenizer)
    found = exported(model, tmp_path / "out", to)
    ids = np.array([[2, 7, 8, 3], [2, 9, 3, 0]], np.int32)
    arrays = ids, np.zeros_like(ids), (ids > 0).astype(np.int32)
    real = arrays[2] > 0
    np.testing.assert_allclose(
        found.encode_ids(*arrays).last_hidden_state[real],
        model.encode_ids(*arrays).last_hidden_state[real],
        atol=TOLERANCE[to],
    )
    with pytest.raises(ValueError, match="this export holds the encoder alone; load what it was"):
        found.translate(["tan"])


@pytest.mark.parametrize("to", [pytest.param("stablehlo", marks=pytest.mark.slow), "onnx"])
def test_methods_are_the_models(to, tokenizer, tmp_path):
    draw = random.Random(0)
    texts = [make_sentence(draw, 1, 12) for _ in range(5)]
    calls = {
        "classification": lambda model: [
            list(one.probabilities.values()) for one in model.classify(texts, texts[::-1])
        ],
        "token_classification": lambda model: [w.probability for w in model.tag(texts[0])],
        "question_answering": lambda model: [
            (a.start, a.end, a.probability) for a in model.answer(texts[0], texts[1], 3)
        ],
        "multiple_choice": lambda model: model.choose(*texts[:2], texts[2:]).probabilities,
        "pretraining": lambda model: [
            *model.in_order(texts[:2], texts[2:4]),
            *(c.probability for c in model.fill_mask("tan [MASK] tan", top_k=3)[0]),
        ],
    }
    for kind, call in calls.items():
        model = model_of(kind, tokenizer)
        found = exported(model, tmp_path / kind, to)
        np.testing.assert_allclose(call(found), call(model), atol=1e-4)
        assert found.tokenizer.vocabulary == tokenizer.vocabulary


def test_settings_of_a_run_stay_with_the_export(tokenizer, tmp_path):
    model = model_of("question_answering", tokenizer, validation={"null_threshold": 0.25})
    found = exported(model, tmp_path / "out", "onnx")
    assert found.validation == {"null_threshold": 0.25}
    assert found.task.config == model.task.config
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["inputs"] == {name: ["B", "T"] for name in (*TEXT, "begins")}
    assert record["outputs"] == {"logits": ["B", 2, "T"]}
    assert record["max_length"] == model.task.config.max_length


def test_both_formats_name_their_outputs_alike(tokenizer, tmp_path):
    records = []
    for to in FORMATS:
        exported(model_of("pretraining", tokenizer), tmp_path / to, to)
        records.append(json.loads((tmp_path / to / "export.json").read_text()))
    assert records[0]["outputs"] == records[1]["outputs"]
    assert records[0]["outputs"]["mlm_logits"] == ["B", "P", VOCAB_SIZE]


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_needs_no_tokenizer(to, tmp_path):
    found = exported(model_of("masked_lm", None), tmp_path / "out", to)
    with pytest.raises(ValueError, match="came without a vocabulary"):
        found.fill_mask("tan [MASK]")


@pytest.mark.parametrize("share", ["all", "none"])
def test_each_weight_is_stored_once(share, tmp_path):
    config = tiny_model(
        vocab_size=4000, hidden_size=64, embedding_size=64, num_hidden_layers=12, share=share
    )
    model = model_of("pretraining", None, config=config)
    count = sum(leaf.size for leaf in _leaves(model.params))
    for to, file in (("onnx", "model.onnx"), ("stablehlo", "params.npz")):
        exported(model, tmp_path / to, to)
        assert (tmp_path / to / file).stat().st_size < 1.1 * 4 * count


def _leaves(tree: Any) -> list[np.ndarray]:
    return (
        [leaf for part in tree.values() for leaf in _leaves(part)]
        if isinstance(tree, dict)
        else [tree]
    )


def test_int8_is_a_quarter_of_the_size_and_nearly_the_same(tmp_path):
    config = tiny_model(
        vocab_size=4000,
        hidden_size=64,
        embedding_size=64,
        num_hidden_layers=12,
        layer_norm_eps=1e-6,
    )
    model = model_of("pretraining", None, config=config)
    whole = exported(model, tmp_path / "float32", "onnx")
    small = exported(model, tmp_path / "int8", "onnx", is_quantized=True)
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("int8", "float32")]
    assert sizes[0] < 0.35 * sizes[1]
    batch = draw_batch(np.random.default_rng(0), model)
    a, b = (m._encoder(batch)["pooled_output"].ravel() for m in (whole, small))
    similarity = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert 0.95 < similarity < 1 - 1e-7  # it does change them


@pytest.mark.parametrize("to", FORMATS)
def test_a_damaged_export_is_refused(to, tmp_path):
    exported(model_of("masked_lm", None), tmp_path / "out", to)
    for file in ("model.onnx",) if to == "onnx" else ("model.stablehlo", "params.npz"):
        path = tmp_path / "out" / file
        contents = path.read_bytes()
        path.write_bytes(contents[: len(contents) // 2])
        with pytest.raises(ValueError, match=r"cannot be read .*; export the model again"):
            albert_jax.load(tmp_path / "out")
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f"{file}: no such file; export the model"):
            albert_jax.load(tmp_path / "out")
        path.write_bytes(contents)
    albert_jax.load(tmp_path / "out")


def test_what_an_export_cannot_do_is_refused(tokenizer, tmp_path):
    found = exported(model_of("classification", tokenizer), tmp_path / "out", "onnx")
    with pytest.raises(ValueError, match="holds only the task of its model, for classification"):
        found(["tan"])
    with pytest.raises(ValueError, match="an export already; export what it was made from"):
        write_export(found, tmp_path, "onnx")
    with pytest.raises(ValueError, match="is an export, without steps"):
        albert_jax.load(tmp_path / "out", step=3)


def test_the_record_says_what_is_missing(tmp_path):
    exported(model_of("masked_lm", None), tmp_path / "out", "onnx")
    (tmp_path / "out" / "export.json").write_text('{"format": "onnx"}')
    with pytest.raises(ValueError, match="missing kind, heads, labels, model, task, valid"):
        albert_jax.load(tmp_path / "out")


def test_a_model_too_large_for_onnx_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("albert_jax.export.onnx._MOST", 1000)
    with pytest.raises(ValueError, match="at most 1,000; export it with --to stablehlo"):
        write_export(model_of("masked_lm", None), tmp_path, "onnx")


# What an export needs, and how README.md runs it there.
ALONE = {
    "stablehlo": (
        ("jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "flatbuffers"),
        """
import jax
import jax.export
import numpy as np

program = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
params = dict(np.load("params.npz"))
outputs = jax.jit(program.call)(params, batch)
""",
    ),
    "onnx": (
        ("onnxruntime", "numpy", "flatbuffers", "google"),
        """
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
names = [output.name for output in session.get_outputs()]
batch = {name: array.astype("int64") for name, array in batch.items()}
outputs = dict(zip(names, session.run(names, batch)))
""",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_an_export_runs_where_little_is_installed(to, tokenizer, tmp_path):
    packages, program = ALONE[to]
    alone = tmp_path / "site"
    alone.mkdir()
    installed = Path(sysconfig.get_paths()["purelib"])
    for package in packages:
        for path in (installed / package, installed / f"{package}.libs"):
            if path.exists():
                (alone / path.name).symlink_to(path)
    model = model_of("question_answering", tokenizer)
    exported(model, tmp_path / "out", to)
    batch = draw_batch(np.random.default_rng(0), model)
    np.savez(tmp_path / "batch.npz", allow_pickle=False, **batch)
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import sys
sys.path.append({str(alone)!r})
import numpy as np
batch = dict(np.load({str(tmp_path / "batch.npz")!r}))
{program}
np.savez({str(tmp_path / "outputs.npz")!r}, **outputs)
for name in ("flax", "albert_jax", "sentencepiece"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{{name}} is installed here too")
"""
    )
    # -I and -S: neither this environment's packages nor its variables.
    code, _, err = run(
        sys.executable, "-I", "-S", script, cwd=tmp_path / "out", env={"JAX_PLATFORMS": "cpu"}
    )
    assert code == 0, err
    with np.load(tmp_path / "outputs.npz") as found:
        wanted = model._program(batch)
        np.testing.assert_allclose(found["logits"], wanted["logits"], atol=TOLERANCE[to])


@pytest.fixture(scope="module")
def classifier(vocabulary, tmp_path_factory) -> Path:
    """A fine-tuned model's directory."""
    folder = tmp_path_factory.mktemp("classifier")
    write_hf(make_weights("classification", vocabulary=read_vocabulary(vocabulary)), folder)
    return folder


def command(source: Path, output: Path, *more: str) -> int:
    return main(["--checkpoint", str(source), "--output", str(output), *more])


def test_the_command_writes_what_load_reads(classifier, tmp_path, capsys):
    assert command(classifier, tmp_path / "new" / "out", "--to", "onnx", "--int8") == 0
    assert "out: classification, export.json 0.0 MB, model.onnx" in capsys.readouterr().out
    found = albert_jax.load(tmp_path / "new" / "out")
    texts = ["tan", "tan tan"]
    for a, b in zip(
        found.classify(texts), albert_jax.load(classifier).classify(texts), strict=True
    ):
        assert a.probabilities == pytest.approx(b.probabilities, abs=0.1)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]  # nothing unfinished


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--to", "stablehlo", "--int8"], "--int8 is for ONNX; add --to onnx, or leave it out"),
        (["--to", "onnx", "--average", "3"], "is not a run directory: there is nothing to av"),
    ],
)
def test_the_command_refuses(more, message, classifier, tmp_path, capsys):
    assert command(classifier, tmp_path / "out", *more) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_keeps_what_is_there(classifier, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert command(classifier, tmp_path, "--to", "onnx") == 1
    assert "exists and is not empty; choose a new one" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
