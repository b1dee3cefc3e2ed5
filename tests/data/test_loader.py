"""Batches: which rows, in which order, for any number of processes, workers and restarts."""

import contextlib
import dataclasses
import itertools
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given
from hypothesis import strategies as st
from support.pieces import CLS, MASK, PAD, SEP, train_tokenizer

from albert_jax.config import DataConfig
from albert_jax.data.loader import Positions, Rows, eval_batches, train_batches
from albert_jax.data.row_reader import open_rows, read_manifest
from albert_jax.data.sampling import row_of
from albert_jax.data.tokenizers import load_tokenizer

SEQ_LEN, MAX_CHUNKS, VOCAB = 64, 4, 60
NUM_TRAIN, NUM_VALIDATION = 23, 7


def random_rows(rng, number, first_document):
    rows = []
    for i in range(number):
        chunks = [rng.integers(1, 6, rng.integers(1, 5)) for _ in range(rng.integers(1, 4))]
        lengths = np.concatenate(chunks)
        documents = first_document + 3 * i + np.arange(len(chunks))
        rows.append(
            {
                "pieces": rng.integers(5, VOCAB, lengths.sum()).astype(np.uint16),
                "sentence_lengths": lengths.astype(np.uint16),
                "chunk_sentences": np.array([len(c) for c in chunks], np.uint16),
                "chunk_documents": documents.astype(np.uint64),
            }
        )
    return rows


def write_rows(path, rows):
    """Writes rows, a dict of lists by split, as `prepare` does."""
    dtypes = {name: x.dtype for name, x in rows["train"][0].items()}
    features = tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(
                shape=(None,), dtype=dtype, encoding=tfds.features.Encoding.BYTES
            )
            for name, dtype in dtypes.items()
        }
    )
    identity = tfds.core.DatasetIdentity(
        name="albert_rows",
        version=tfds.core.Version("1.0.0"),
        data_dir=str(path),
        module_name="albert_jax",
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features, description="rows")
    writer = tfds.core.SequentialWriter(info, 10, file_format="array_record")
    writer.initialize_splits(list(rows))
    writer.add_examples(rows)
    writer.close_splits(list(rows))


def write_manifest(path, **changes):
    tokenizer = load_tokenizer(path / "tokenizer.model")
    manifest = {
        "format_version": 1,
        "seq_len": SEQ_LEN,
        "packing": True,
        "max_chunks": MAX_CHUNKS,
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha256": tokenizer.sha256,
        "unigram_entropy": 4.0,
        "fingerprint": "0" * 64,
        "rows": {"train": NUM_TRAIN, "validation": NUM_VALIDATION},
    }
    (path / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    validation = random_rows(rng, NUM_VALIDATION, 1000)
    return {"train": random_rows(rng, NUM_TRAIN, 0), "validation": validation}


@pytest.fixture(scope="module")
def data(tmp_path_factory, rows):
    """A config of 23 training and 7 validation rows."""
    path = tmp_path_factory.mktemp("rows")
    write_rows(path, rows)
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [f"{a}{b} {b}{c}{a}" for a, b, c in itertools.product(letters, letters[:9], "xyz")]
    train_tokenizer(texts, path / "tokenizer.model", VOCAB)
    write_manifest(path)
    return DataConfig(path=str(path), seq_len=SEQ_LEN)


EVERYTHING = slice(None)


def take(config, seed=1, batch_size=8, positions: Positions = EVERYTHING, first=0, num_steps=6):
    with contextlib.closing(
        train_batches(config, seed, batch_size, positions, first, num_steps)
    ) as batches:
        return list(batches)


def assert_same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert x.keys() == y.keys()
        for name in x:
            assert np.array_equal(x[name], y[name]), name


def pieces_of(batch, row):
    """A row of a batch with what was masked put back, without special ids."""
    ids = batch["input_ids"][row].copy()
    used = batch["mlm_weights"][row] > 0
    ids[batch["mlm_positions"][row][used]] = batch["mlm_labels"][row][used]
    return sorted(ids[~np.isin(ids, (PAD, CLS, SEP))].tolist())


def test_shapes_and_types(data):
    (batch,) = take(data, num_steps=1)
    shapes = {
        SEQ_LEN: "input_ids token_type_ids position_ids segment_ids",
        16: "mlm_positions mlm_labels mlm_weights",
        MAX_CHUNKS: "cls_positions sentence_labels sentence_weights",
    }
    expected = {name: (8, n) for n, names in shapes.items() for name in names.split()}
    assert {name: x.shape for name, x in batch.items()} == expected
    for name, x in batch.items():
        assert x.dtype == (np.float32 if name.endswith("weights") else np.int32)


def test_an_example_is_its_row(data, rows):
    examples = Rows(data, "train")
    for i, row in enumerate(rows["train"]):
        example = examples.make_example(seed=3, epoch=2, row=i)
        batch = {name: x[None] for name, x in example.items()}
        assert pieces_of(batch, 0) == sorted(row["pieces"].tolist())
        m = len(row["chunk_sentences"])
        assert example["segment_ids"].max() == m
        assert (example["input_ids"][example["cls_positions"][:m]] == CLS).all()
        empty = example["segment_ids"] == 0
        for name in ("input_ids", "token_type_ids", "position_ids"):
            assert not example[name][empty].any()
        used = example["mlm_weights"] > 0
        assert used.any()
        assert set(example["mlm_weights"]) <= {0.0, 1.0}
        for name in ("mlm_positions", "mlm_labels"):
            assert not example[name][~used].any()
        assert not example["sentence_weights"][m:].any()
        assert (example["input_ids"] == MASK).any() or used.sum() < 10


def test_an_example_depends_on_seed_epoch_and_row_alone(data, rows):
    examples, again = Rows(data, "train"), Rows(data, "train")
    longest = np.argsort([len(r["pieces"]) for r in rows["train"]])[-2:].tolist()
    keys = list(itertools.product((0, 1), (0, 1, 2), longest))
    first = [examples.make_example(*k) for k in keys]
    assert_same(first, [again.make_example(*k) for k in reversed(keys)][::-1])
    for a, b in itertools.combinations(first, 2):
        assert not np.array_equal(a["input_ids"], b["input_ids"])


@given(
    st.integers(0, 2**63 - 1),
    st.integers(1, 60),
    st.integers(1, 40),
    st.integers(0, 5),
)
def test_each_row_once_an_epoch(seed, num_rows, batch_size, first_epoch):
    num_steps = -(-(first_epoch + 2) * num_rows // batch_size)
    seen = [row_of(seed, num_rows, j) for j in range(num_steps * batch_size)]
    for epoch in range(first_epoch + 2):
        part = seen[epoch * num_rows : (epoch + 1) * num_rows]
        assert [e for e, _ in part] == [epoch] * num_rows
        assert sorted(r for _, r in part) == list(range(num_rows))


def test_epochs_and_seeds_have_their_own_orders():
    def order(seed, epoch):
        return tuple(row_of(seed, 50, epoch * 50 + i)[1] for i in range(50))

    orders = {order(seed, epoch) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_batches_hold_the_rows_that_row_of_names(data, rows):
    batches = take(data, seed=5, batch_size=9, num_steps=6)  # 54 examples, 23 rows
    numbers = itertools.product(range(6), range(9))
    for j, (step, i) in enumerate(numbers):
        epoch, row = row_of(5, NUM_TRAIN, j)
        assert epoch == j // NUM_TRAIN
        assert pieces_of(batches[step], i) == sorted(rows["train"][row]["pieces"].tolist())


@pytest.mark.parametrize(("batch_size", "parts"), [(8, 2), (8, 8), (6, 3), (50, 5), (1, 1)])
def test_processes_share_out_the_one_process_batch(data, batch_size, parts):
    whole = take(data, batch_size=batch_size)
    size = batch_size // parts
    each = [take(data, 1, batch_size, slice(p * size, (p + 1) * size)) for p in range(parts)]
    joined = [
        {n: np.concatenate([b[n] for b in bs]) for n in bs[0]} for bs in zip(*each, strict=True)
    ]
    assert_same(whole, joined)


def test_positions_may_be_any_indices(data):
    whole = take(data, num_steps=2)
    picked = take(data, positions=np.array([1, 6, 7]), num_steps=2)
    assert_same([{n: x[[1, 6, 7]] for n, x in b.items()} for b in whole], picked)


@pytest.mark.parametrize("step", [1, 4])
def test_resuming_gives_the_batches_that_would_have_come(data, step):
    assert_same(take(data)[step:], take(data, first=step, num_steps=6 - step))


def test_no_steps_no_batches(data):
    assert take(data, first=3, num_steps=0) == []


def test_worker_processes_change_nothing(data):
    config = dataclasses.replace(data, sentence_objective="nsp")  # reads rows of its own accord
    workers = dataclasses.replace(config, num_workers=2)
    assert_same(take(config, num_steps=5), take(workers, num_steps=5))


def test_evaluation_sees_each_row_once(data, rows):
    batches = list(eval_batches(data, 4, EVERYTHING))
    assert len(batches) == 2
    seen = [(b, i) for b in batches for i in range(4)]
    for (batch, i), row in zip(seen, rows["validation"], strict=False):
        assert pieces_of(batch, i) == sorted(row["pieces"].tolist())
    last = {name: x[3] for name, x in batches[1].items()}
    assert all(not x.any() for x in last.values())  # an empty row


def test_evaluation_is_the_same_each_time_and_for_any_batch_size(data):
    whole = list(eval_batches(data, 8, EVERYTHING))
    parts = [list(eval_batches(data, 4, slice(p, None, 2))) for p in range(2)]
    assert_same(whole, list(eval_batches(data, 8, EVERYTHING)))
    for step, (even, odd) in enumerate(zip(*parts, strict=True)):
        for name, x in whole[0].items():
            assert np.array_equal(x[4 * step : 4 * step + 4 : 2], even[name])
            assert np.array_equal(x[4 * step + 1 : 4 * step + 4 : 2], odd[name])


def test_rows_can_be_pickled(data):
    rows = Rows(data, "train")
    copy = pickle.loads(pickle.dumps(rows))
    assert_same([rows.make_example(0, 0, 1)], [copy.make_example(0, 0, 1)])


def test_reading_starts_no_jax_backend(data, repo_root):
    code = (
        "import sys\n"
        "from albert_jax.config import DataConfig\n"
        "from albert_jax.data.loader import train_batches\n"
        "if __name__ == '__main__':\n"
        f"    config = DataConfig(path={data.path!r}, seq_len={SEQ_LEN})\n"
        "    list(train_batches(config, 0, 4, slice(None), 0, 2))\n"
        "    bridge = sys.modules.get('jax._src.xla_bridge')\n"
        "    assert bridge is None or not bridge.backends_are_initialized()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_missing_data_is_an_error(data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder.*prepare"):
        read_manifest(dataclasses.replace(data, path=str(tmp_path / "none")))
    with pytest.raises(FileNotFoundError, match=r"manifest.json.*prepare"):
        read_manifest(dataclasses.replace(data, path=str(tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"TFDS.*prepare"):
        open_rows(tmp_path, "train")


def test_other_settings_than_the_rows_were_prepared_for_are_an_error(data):
    with pytest.raises(ValueError, match=r"data.seq_len 128: .*seq_len 64; set data.seq_len=64"):
        Rows(dataclasses.replace(data, seq_len=128), "train")
    with pytest.raises(ValueError, match=r"data.packing False: .*packing True"):
        Rows(dataclasses.replace(data, packing=False), "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version is 2.*reads 1"),
        ({"tokenizer_sha256": "0"}, "sha256"),
        (
            {"rows": {"train": 24, "validation": 7}},
            "rows of train is 23, but manifest.json says 24",
        ),
        ({"max_chunks": 1}, "chunks.*prepare the data again"),
    ],
)
def test_data_that_contradicts_itself_is_an_error(tmp_path, data, change, message):
    for file in Path(data.path).iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "manifest.json").unlink()
    write_manifest(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        take(dataclasses.replace(data, path=str(tmp_path)))
