"""Batches of rows of like length: each row in its turn, resumed exactly, with little padding."""

import hashlib
import itertools
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from support.examples import examples

from albert_jax.data.tokenizers import load_tokenizer
from albert_jax.tasks.batching import (
    WINDOW,
    TokenBatches,
    collate,
    eval_batches,
    train_batches,
    width_for,
    window_size,
)
from albert_jax.tasks.classification import text_features
from albert_jax.tasks.features import NONE, FeatureRow, length_of
from albert_jax.tasks.registry import read_task

QUICK = examples(60)
COUNTS = st.integers(1, 300)
SIZES = st.integers(1, 16)


def make_rows(count: int, seed: int = 0, longest: int = 100) -> list[FeatureRow]:
    """FeatureRows of random lengths whose label is their number."""
    lengths = np.random.default_rng(seed).integers(3, longest + 1, count)
    return [
        {
            "input_ids": np.full(n, 7, np.int32),
            "attention_mask": np.ones(n, np.int32),
            "tags": np.full(n, i, np.int32),
            "label": np.array(i, np.int32),
        }
        for i, n in enumerate(lengths.tolist())
    ]


def labels(batches) -> list[list[int]]:
    return [batch["label"].tolist() for batch in batches]


@QUICK
@given(COUNTS, SIZES, st.integers(0, 2**31 - 1), st.integers(0, 100), st.integers(0, 40))
def test_a_run_resumes_with_the_batches_it_would_have_had(count, size, seed, first, steps):
    rows = make_rows(count)
    whole = labels(train_batches(rows, size, 128, seed, 0, first + steps))
    assert len(whole) == first + steps
    assert labels(train_batches(rows, size, 128, seed, first, steps)) == whole[first:]


@QUICK
@given(COUNTS, SIZES, st.integers(1, 12))
def test_rows_take_turns(count, size, windows):
    """After any number of whole windows, the rows' counts differ by one at most.

    So they are equal where those windows hold a whole number of epochs.
    """
    rows = make_rows(count)
    drawn = window_size(count, size) * size
    batches = labels(train_batches(rows, size, 128, 3, 0, windows * drawn // size))
    times = np.bincount(list(itertools.chain(*batches)), minlength=count)
    assert times.sum() == windows * drawn
    assert set(times.tolist()) <= {windows * drawn // count, -(-windows * drawn // count)}
    if windows * drawn % count == 0:
        assert set(times.tolist()) == {windows * drawn // count}


def test_an_epoch_has_every_row_once_and_its_own_order():
    rows = make_rows(256)
    batches = labels(train_batches(rows, 8, 128, 0, 0, 3 * 32))
    epochs = [list(itertools.chain(*batches[i : i + 32])) for i in (0, 32, 64)]
    assert all(sorted(epoch) == list(range(256)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    other = labels(train_batches(rows, 8, 128, 1, 0, 32))
    assert sorted(itertools.chain(*other)) == list(range(256))
    # Another seed has other rows in its first window, not only in another order.
    drawn = window_size(256, 8)
    first = {label for batch in batches[:drawn] for label in batch}
    assert {label for batch in other[:drawn] for label in batch} != first


@pytest.mark.parametrize("count", [40, 100, 1000, 20_000])
def test_few_rows_do_not_fill_a_batch_with_copies(count):
    rows, size = make_rows(count), 32
    batches = labels(train_batches(rows, size, 128, 0, 0, 200))
    copies = sum(size - len(set(batch)) for batch in batches) / (200 * size)
    # Only where one epoch ends and the next begins within a batch, or a window.
    assert copies < {40: 0.2, 100: 0.05, 1000: 0.01, 20_000: 0.001}[count]
    assert 1 <= window_size(count, size) <= WINDOW
    assert window_size(count, size) * size <= max(count / 4, size)


@given(st.integers(1, 600), st.sampled_from([8, 32, 100, 128, 384, 512]))
def test_a_width_is_the_least_power_of_two_from_16(length, longest):
    width = width_for(min(length, longest), longest)
    powers = [16 * 2**i for i in range(7)]
    assert width == min(longest, min(p for p in powers if p >= min(length, longest)))


def test_batches_hold_their_rows_and_padding():
    rows = make_rows(5, longest=50)
    batch = collate(rows, 8, 384)
    assert {name: array.shape for name, array in batch.items()} == {
        "input_ids": (8, 64),
        "attention_mask": (8, 64),
        "tags": (8, 64),
        "label": (8,),
        "weights": (8,),
    }
    assert {name: array.dtype for name, array in batch.items()} == {
        **dict.fromkeys(rows[0], np.int32),
        "weights": np.float32,
    }
    assert batch["weights"].tolist() == [1] * 5 + [0] * 3
    assert batch["label"].tolist() == [0, 1, 2, 3, 4, 0, 0, 0]
    for i, padding in (("input_ids", 0), ("attention_mask", 0), ("tags", NONE)):
        for slots, row in zip(batch[i], [*rows, *rows[:1] * 3], strict=True):
            n = length_of(row)
            assert np.array_equal(slots[:n], row[i])
            assert np.all(slots[n:] == padding)
    options = [{"input_ids": np.ones((4, 9), np.int32)}, {"input_ids": np.ones((4, 40), np.int32)}]
    assert collate(options, 2, 48)["input_ids"].shape == (2, 4, 48)
    assert collate(options[:1], 1, 16)["input_ids"].shape == (1, 4, 16)


def test_batches_are_of_like_length():
    rows = make_rows(20_000, longest=512)
    lengths = [
        batch["attention_mask"].sum(axis=1) for batch in train_batches(rows, 16, 512, 0, 0, WINDOW)
    ]
    assert np.median([np.ptp(batch) for batch in lengths]) < 512 / 16
    # They do not come in the order of their lengths: the loss would rise and fall with it.
    steps = np.arange(WINDOW)
    assert abs(np.corrcoef(steps, [batch.mean() for batch in lengths])[0, 1]) < 0.5


@QUICK
@given(st.integers(0, 60), SIZES)
def test_an_evaluation_sees_every_row_once_the_longest_first(count, size):
    rows = make_rows(count)
    batches = list(eval_batches(rows, size, 128))
    members = [int(i) for group, _ in batches for i in group]
    assert sorted(members) == list(range(count))
    assert len(batches) == -(-count // size)
    lengths = [length_of(rows[i]) for i in members]
    assert lengths == sorted(lengths, reverse=True)
    for group, batch in batches:
        assert batch["label"][: len(group)].tolist() == list(group)
        assert batch["weights"].tolist() == [1] * len(group) + [0] * (size - len(group))


DIGEST = """
import hashlib
from test_batching import make_rows
from albert_jax.tasks.batching import train_batches
digest = hashlib.sha256()
for batch in train_batches(make_rows(500), 8, 128, 5, 30, 90):
    digest.update(batch["label"].tobytes() + batch["tags"].tobytes())
print(digest.hexdigest())
"""


def test_another_process_makes_the_same_batches(repo_root):
    digest = hashlib.sha256()
    for batch in train_batches(make_rows(500), 8, 128, 5, 30, 90):
        digest.update(batch["label"].tobytes() + batch["tags"].tobytes())
    folders = (repo_root, repo_root / "tests", repo_root / "tests/tasks")
    env = {"PYTHONPATH": ":".join(map(str, folders)), "PYTHONHASHSEED": "7"}
    run = subprocess.run(
        [sys.executable, "-c", DIGEST], env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == digest.hexdigest()


# Slots computed, as a share of those that rows of 512 would have, and what of them is padding.
@pytest.mark.parametrize(
    ("task", "batch_size", "share", "padding"),
    [("cola", 16, 0.064, 0.66), ("stsb", 16, 0.085, 0.36), ("mrpc", 32, 0.18, 0.36)],
)
def test_short_texts_cost_little(task, batch_size, share, padding, shared_data):
    tokenizer = load_tokenizer(shared_data / "albert_vocab" / "30k-clean.model")
    examples = read_task(f"glue/{task}", str(shared_data / "glue")).splits["train"]
    rows = text_features(examples, tokenizer, 512).rows
    steps = len(rows) // batch_size
    real = slots = 0
    for batch in train_batches(rows, batch_size, 512, 0, 0, steps):
        real += int(batch["attention_mask"].sum())
        slots += batch["attention_mask"].size
    assert slots <= share * steps * batch_size * 512
    assert 1 - real / slots <= padding


@QUICK
@given(count=COUNTS, seed=st.integers(0, 99), multiple=st.sampled_from([1, 2, 8]))
def test_batches_by_tokens_hold_every_row_once_an_epoch(count, seed, multiple):
    rows = make_rows(count, seed)
    batches = TokenBatches(rows, 1024, 100, multiple, seed)
    seen: list[int] = []
    for batch in batches.stream(0, 2 * batches.per_epoch):
        size, width = batch["input_ids"].shape
        assert size % multiple == 0
        assert size * width <= 1024
        assert (size + multiple) * width > 1024, "another row would fit"
        seen += batch["label"][batch["weights"] > 0].tolist()
    assert seen != sorted(seen) or count < 8
    for epoch in (seen[:count], seen[count:]):
        assert sorted(epoch) == list(range(count))


def test_batches_by_tokens_go_on_from_any_step():
    rows = make_rows(200)
    whole = labels(TokenBatches(rows, 1024, 100, 1, 0).stream(0, 90))
    for first in (1, 17, 40, 89):
        again = TokenBatches(rows, 1024, 100, 1, 0)
        assert labels(again.stream(first, 90 - first)) == whole[first:]
    assert labels(TokenBatches(rows, 1024, 100, 1, 1).stream(0, 90)) != whole


def test_batches_by_tokens_waste_little():
    rows = make_rows(2000)
    batches = TokenBatches(rows, 4096, 100, 1, 0)
    real = sum(int(b["attention_mask"].sum()) for b in batches.stream(0, batches.per_epoch))
    slots = sum(b["attention_mask"].size for b in batches.stream(0, batches.per_epoch))
    assert real / slots > 0.75


def test_rows_that_fill_no_batch_are_named():
    with pytest.raises(ValueError, match=r"batch_tokens=128 does not hold 2 rows of 96"):
        TokenBatches(make_rows(50, longest=90), 128, 100, 2, 0)
