"""The TPU kernel, run by Pallas's interpreter, against plain attention: values and gradients."""

from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from albert_jax.config import MeshConfig, ModelConfig
from albert_jax.model import Albert, Compute, attention
from albert_jax.model.attention import Segments, attend, dropout_note, implementation
from albert_jax.model.sharding import make_mesh
from albert_jax.model.tpu_attention import tpu_attention


def plain(qkv, biases, segment_ids, num_heads):
    B, T, D = qkv[0].shape
    q, k, v = (
        (x + bias[None, None]).reshape(B, T, num_heads, D // num_heads)
        for x, bias in zip(qkv, biases, strict=True)
    )
    return attend(q, k, v, Segments.of(segment_ids).mask, 0.0, None).reshape(B, T, D)


def kernel(qkv, biases, segment_ids, num_heads):
    return tpu_attention(qkv, biases, segment_ids, num_heads, interpret=True)


def drawn(segment_ids, D, dtype):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    shape = (*segment_ids.shape, D)
    return [normal(*shape) for _ in range(3)], [normal(D) for _ in range(3)], normal(*shape)


@partial(jax.jit, static_argnums=(0, 5))
def value_and_gradients(function, qkv, biases, grad, segment_ids, num_heads):
    value, pull = jax.vjp(lambda *x: function(*x, segment_ids, num_heads), qkv, biases)
    return jax.tree.map(lambda x: x.astype(jnp.float32), (value, *pull(grad)))


def assert_equal(ours, theirs, tolerance=2e-6):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        # The gradient of the keys' bias is a sum that is 0 but for rounding.
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=16 * tolerance)


def packed(T, lengths):
    """Segments 1, 2, … of these lengths, then padding."""
    ids = np.repeat(np.arange(1, len(lengths) + 1), lengths)[:T]
    return np.pad(ids, (0, T - len(ids)))


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_every_layout_of_segments_gives_what_plain_attention_does(data):
    lengths = st.lists(st.integers(1, 128), max_size=6)
    rows = [packed(128, data.draw(lengths)) for _ in range(2)]
    segment_ids = jnp.asarray(np.stack(rows), jnp.int32)
    qkv, biases, grad = drawn(segment_ids, 128, jnp.float32)
    ours, theirs = (
        value_and_gradients(f, qkv, biases, grad, segment_ids, 2) for f in (kernel, plain)
    )
    assert_equal(ours, theirs)


@pytest.mark.parametrize(
    ("T", "D", "num_heads"),
    [
        (256, 256, 2),  # a head as wide as the registers: xlarge
        (128, 256, 4),  # two heads in one: base, large, xxlarge
        (128, 128, 4),  # four in one: tiny
        (128, 192, 3),  # what tensor=4 leaves of base: not whole registers
        (128, 384, 4),  # heads that straddle registers
        (128, 64, 2),  # less than a register
        pytest.param(1024, 128, 2, marks=pytest.mark.slow),  # several blocks of queries
        pytest.param(512, 256, 1, marks=pytest.mark.slow),  # a head wider than the registers
    ],
)
def test_every_size_gives_what_plain_attention_does(T, D, num_heads):
    segment_ids = jnp.asarray([packed(T, [T // 2, 5, T // 3])], jnp.int32)
    qkv, biases, grad = drawn(segment_ids, D, jnp.float32)
    ours, theirs = (
        value_and_gradients(f, qkv, biases, grad, segment_ids, num_heads) for f in (kernel, plain)
    )
    assert_equal(ours, theirs)


def test_in_bfloat16_it_is_as_near_to_the_truth_as_plain_attention():
    segment_ids = jnp.asarray([packed(256, [100, 120])], jnp.int32)
    low = drawn(segment_ids, 128, jnp.bfloat16)
    high = jax.tree.map(lambda x: x.astype(jnp.float32), low)
    truth = value_and_gradients(plain, *high, segment_ids, 2)
    ours, theirs = (value_and_gradients(f, *low, segment_ids, 2) for f in (kernel, plain))

    def error(found):
        return [
            float(np.abs(a - b).mean())
            for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(truth), strict=True)
        ]

    for mine, plains in zip(error(ours), error(theirs), strict=True):
        assert mine <= 1.2 * plains


@pytest.mark.parametrize(
    "sizes",
    [(2, 1, 1), (1, 2, 2), pytest.param((2, 2, 2), marks=pytest.mark.slow)],
    ids=str,
)
def test_each_device_of_a_mesh_computes_its_rows_and_heads(sizes):
    segment_ids = jnp.asarray([packed(128, [n, 20, 30]) for n in (10, 50, 70, 78)], jnp.int32)
    qkv, biases, grad = drawn(segment_ids, 128, jnp.float32)
    alone = value_and_gradients(kernel, qkv, biases, grad, segment_ids, 4)
    mesh = make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
    with jax.set_mesh(mesh):
        split = value_and_gradients(kernel, qkv, biases, grad, segment_ids, 4)
    assert_equal(split, alone)


@pytest.mark.parametrize(
    ("kind", "platform", "T", "dtype", "expected"),
    [
        ("TPU v5", "tpu", 512, jnp.bfloat16, "tpu"),
        ("TPU v5", "tpu", 96, jnp.bfloat16, "xla"),  # not whole registers
        ("TPU v5", "tpu", 4096, jnp.bfloat16, "xla"),
        ("TPU v5", "tpu", 512, jnp.float32, "xla"),
        ("NVIDIA H100 80GB HBM3", "cuda", 96, jnp.bfloat16, "cudnn"),
        ("NVIDIA H100 80GB HBM3", "cuda", 512, jnp.float32, "xla"),
        ("cpu", "cpu", 512, jnp.bfloat16, "xla"),
    ],
)
def test_auto_goes_by_the_devices_of_the_mesh(kind, platform, T, dtype, expected):
    device = AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
    mesh = AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)
    x_BTD = jnp.zeros((2, T, 768), dtype)
    with jax.sharding.use_abstract_mesh(mesh):
        assert implementation("auto", x_BTD, 12) == expected


@pytest.mark.parametrize(
    ("kind", "rate", "platform", "is_told"),
    [
        ("auto", 0.1, "tpu", True),
        ("tpu", 0.1, "tpu", True),
        ("auto", 0.1, "cuda", True),
        ("auto", 0.0, "tpu", False),
        ("auto", 0.1, "cpu", False),
        ("xla", 0.1, "tpu", False),
    ],
)
def test_dropout_that_keeps_the_plain_path_is_told(kind, rate, platform, is_told):
    assert (dropout_note(kind, rate, platform) is not None) == is_told


def test_with_dropout_attention_is_the_plain_one(monkeypatch):
    config = ModelConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=64, embedding_size=16, attention_probs_dropout_prob=0.5,
        max_position_embeddings=128,
    )  # fmt: skip
    monkeypatch.setattr(attention, "tpu_attention", lambda *_: pytest.fail("the kernel"))
    model = Albert(config, compute=Compute(attention="tpu"), rngs=nnx.Rngs(0))
    ids = jnp.ones((1, 128), jnp.int32)
    model(ids, ids, ids, ids, jax.random.split(jax.random.key(0), 1))
    with pytest.raises(pytest.fail.Exception, match="the kernel"):
        model(ids, ids, ids, ids)


def test_rows_that_the_kernel_cannot_take_are_refused():
    qkv, biases, _ = drawn(jnp.ones((1, 96), jnp.int32), 128, jnp.float32)
    with pytest.raises(
        ValueError, match=r"multiple of 128 slots up to 2048.* got rows of 96 and 2 heads of 64"
    ):
        kernel(qkv, biases, jnp.ones((1, 96), jnp.int32), 2)


def test_the_model_is_the_same_with_the_kernel(monkeypatch):
    config = ModelConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, embedding_size=16, max_position_embeddings=128,
    )  # fmt: skip
    monkeypatch.setattr(
        attention,
        "tpu_attention",
        lambda *x: tpu_attention(*x, interpret=True),
    )
    segment_ids = jnp.asarray([packed(128, [50, 60])], jnp.int32)
    ids = jnp.arange(128)[None] % 50
    zeros = jnp.zeros_like(ids)
    ours, theirs = (
        Albert(config, compute=Compute(attention=kind), rngs=nnx.Rngs(0))(
            ids, zeros, ids, segment_ids
        ).last_hidden_state
        for kind in ("tpu", "xla")
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
