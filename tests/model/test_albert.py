"""The network: parameter counts, packing, sharing, the scan against a plain loop."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.models import random_batch, tiny_model

from albert_jax.config import ModelConfig
from albert_jax.config.presets import albert_preset, bert_preset
from albert_jax.model import PRETRAINING, Albert, is_stacked
from albert_jax.model.attention import Segments
from albert_jax.model.custom_gradients import (
    add_bias,
    keeping_slope,
    layer_normalize,
    product,
    softmax,
)
from albert_jax.model.encoder import layers_of_groups
from albert_jax.model.sharding import PARAM_RULES, param_spec, path_of

HEADS = (*PRETRAINING, "classifier", "span")
INPUTS = ("input_ids", "token_type_ids", "position_ids", "segment_ids")


def shapes_of(
    config: ModelConfig, heads: tuple[str, ...] = ("pooler",)
) -> dict[str, tuple[int, ...]]:
    state = nnx.state(nnx.eval_shape(lambda: Albert(config, heads, rngs=nnx.Rngs(0))), nnx.Param)
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(state))
    return {path_of(path): leaf.shape for path, leaf in leaves}


def millions(config: ModelConfig) -> float:
    return sum(int(np.prod(shape)) for shape in shapes_of(config).values()) / 1e6


@pytest.mark.parametrize(
    ("size", "paper"), [("base", 12), ("large", 18), ("xlarge", 60), ("xxlarge", 223)]
)
def test_published_sizes(size, paper):
    # arXiv:1909.11942, Table 1. It says 235M of xxlarge, whose published weights are 223M.
    for version in ("v1", "v2"):
        config = dataclasses.replace(ModelConfig(), **albert_preset(size, version))
        assert abs(millions(config) - paper) < 1.5


@pytest.mark.parametrize(
    ("share", "embedding_size", "paper"),
    [
        *(("none", *row) for row in ((64, 87), (128, 89), (256, 93), (768, 108))),
        *(("all", *row) for row in ((64, 10), (128, 12), (256, 16), (768, 31))),
        *(("attention", *row) for row in ((128, 64), (768, 83))),
        *(("ffn", *row) for row in ((128, 38), (768, 57))),
    ],
)
def test_parameter_counts_of_the_paper(share, embedding_size, paper):
    # arXiv:1909.11942, Tables 3 and 4, in whole millions.
    config = dataclasses.replace(ModelConfig(), share=share, embedding_size=embedding_size)
    assert abs(millions(config) - paper) < 1.1


@pytest.mark.parametrize(("size", "paper"), [("base", 108), ("large", 334)])
def test_bert_baseline_sizes(size, paper):
    # arXiv:1909.11942, Table 1.
    config = dataclasses.replace(ModelConfig(), **bert_preset(size))
    assert abs(millions(config) - paper) < 1.1
    assert "encoder/embed_proj/kernel" not in shapes_of(config)


def test_every_parameter_has_one_sharding_rule_and_every_rule_a_parameter():
    paths = {
        path: len(shape)
        for share in ("all", "none")
        for path, shape in shapes_of(tiny_model(share=share), HEADS).items()
    }
    used = {param_spec(path, ndim) for path, ndim in paths.items()}  # raises unless one matches
    assert used

    unused = [rule for rule, _ in PARAM_RULES if not any(re.fullmatch(rule, p) for p in paths)]
    assert not unused
    with pytest.raises(ValueError, match="nowhere/kernel"):
        param_spec("nowhere/kernel", 2)


def build(config: ModelConfig, params: Any) -> Albert:
    abstract = nnx.eval_shape(lambda: Albert(config, PRETRAINING, rngs=nnx.Rngs(0)))
    return nnx.merge(nnx.split(abstract, nnx.Param)[0], params)


def forward(config: ModelConfig, params: Any, batch: dict[str, Any], **kwargs: Any) -> Any:
    inputs = [jnp.asarray(batch[name]) for name in INPUTS]
    call = jax.jit(lambda params, *inputs: build(config, params)(*inputs, **kwargs))
    return build(config, params), call(params, *inputs)


def init(config: ModelConfig, scale: float = 5.0) -> Any:
    """Parameters larger than at the start of training, so that differences show."""

    def scaled() -> Any:
        state = nnx.state(Albert(config, PRETRAINING, rngs=nnx.Rngs(0)), nnx.Param)
        return jax.tree.map(lambda p: p * scale if p.ndim > 1 else p, nnx.to_pure_dict(state))

    return jax.jit(scaled)()


def unpack(batch: dict[str, np.ndarray], row: int, chunk: int) -> dict[str, np.ndarray]:
    """One chunk of a packed row, alone in a row of its own length."""
    slots = np.flatnonzero(batch["segment_ids"][row] == chunk)
    alone = {name: batch[name][row : row + 1, slots] for name in INPUTS}
    return alone | {"segment_ids": np.ones_like(alone["input_ids"])}


def test_a_packed_row_gives_what_its_chunks_give_alone():
    config, batch = tiny_model(), random_batch(batch_size=3)
    params = init(config)
    model, packed = forward(config, params, batch, keep_hidden=True)
    pooled = model.pool(packed.last_hidden_state, jnp.asarray(batch["cls_positions"]))
    for row in range(3):
        for chunk in (1, 2):
            slots = batch["segment_ids"][row] == chunk
            model, alone = forward(config, params, unpack(batch, row, chunk), keep_hidden=True)
            np.testing.assert_allclose(
                packed.hidden_states[:, row, slots], alone.hidden_states[:, 0], atol=1e-5
            )
            own = model.pool(alone.last_hidden_state, jnp.zeros((1, 1), int))[0, 0]
            np.testing.assert_allclose(pooled[row, chunk - 1], own, atol=1e-5)


def test_padding_and_other_chunks_have_no_influence():
    config, batch = tiny_model(), random_batch(batch_size=2)
    params = init(config)
    changed = dict(batch)
    outside = batch["segment_ids"] != 1
    changed["input_ids"] = np.where(outside, 7, batch["input_ids"])
    _, before = forward(config, params, batch)
    _, after = forward(config, params, changed)
    np.testing.assert_array_equal(
        np.asarray(before.last_hidden_state)[~outside],
        np.asarray(after.last_hidden_state)[~outside],
    )
    assert np.isfinite(after.last_hidden_state).all()


def unrolled(config: ModelConfig, params: Any, batch: dict[str, Any]) -> jax.Array:
    """The encoder's hidden states by a plain loop over layers, their weights picked by hand."""
    model: Any = build(config, params)
    ids = [jnp.asarray(batch[name]) for name in INPUTS]
    x = model.embeddings(*ids[:3], None)
    x = model.encoder.embed_proj(x) if config.embedding_size != config.hidden_size else x
    hidden, mask = [x], Segments.of(ids[3])
    counts = layers_of_groups(config.num_hidden_layers, config.num_hidden_groups)
    for group, count in enumerate(counts):
        for layer in range(count):
            for inner in range(config.inner_group_num):
                where = f"encoder/group_{group}/inner_group_{inner}"
                block = getattr(getattr(model.encoder, f"group_{group}"), f"inner_group_{inner}")
                for name, inputs in (("attention", (mask, None)), ("ffn", (None,))):
                    part = getattr(block, name)
                    if is_stacked(f"{where}/{name}/norm/scale", config.share):
                        graphdef, state = nnx.split(part)
                        part = nnx.merge(graphdef, jax.tree.map(lambda p, n=layer: p[n], state))
                    x = part(x, *inputs)
            hidden.append(x)
    return jnp.stack(hidden)


@pytest.mark.parametrize(
    "changes",
    [
        {"share": "all"},
        {"share": "none"},
        {"num_hidden_groups": 3, "num_hidden_layers": 5, "inner_group_num": 2},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"share": "attention"},
                {"share": "ffn"},
                {"num_hidden_groups": 2},
                {
                    "num_hidden_groups": 2,
                    "share": "ffn",
                    "embedding_size": 32,
                    "hidden_act": "relu",
                },
            )
        ),
    ],
    ids=str,
)
def test_the_scan_is_the_loop(changes):
    config, batch = tiny_model(**changes), random_batch(batch_size=2)
    params = init(config)
    _, scanned = forward(config, params, batch, keep_hidden=True)
    loop = unrolled(config, params, batch)
    assert scanned.hidden_states.shape[0] == config.num_hidden_layers + 1
    np.testing.assert_allclose(scanned.hidden_states, loop, atol=1e-5)
    np.testing.assert_array_equal(scanned.hidden_states[-1], scanned.last_hidden_state)


def test_stacked_layers_start_out_different():
    params = init(tiny_model(share="none"))
    kernel = params["encoder"]["group_0"]["inner_group_0"]["attention"]["query"]["kernel"]
    assert len(np.unique(np.asarray(kernel)[:, 0, 0])) == 4


def test_initial_weights_are_the_truncated_normal_of_the_original():
    config = tiny_model(vocab_size=4000, embedding_size=64)
    table = init(config, scale=1.0)["embeddings"]["token_embed"]["embedding"]
    assert np.abs(table).max() <= 2 * config.initializer_range
    # The deviation of a standard normal cut at two is 0.8796; TensorFlow does not rescale it.
    assert abs(np.std(table) / config.initializer_range - 0.8796) < 0.01


def test_groups_of_layers_follow_the_reference():
    assert layers_of_groups(12, 1) == [12]
    assert layers_of_groups(12, 3) == [4, 4, 4]
    assert layers_of_groups(5, 3) == [2, 2, 1]


@pytest.mark.parametrize("share", ["all", "none"])
def test_tracing_does_not_grow_with_depth(share):
    def equations(layers: int) -> int:
        config = tiny_model(num_hidden_layers=layers, share=share)
        batch = random_batch(batch_size=1)
        params = jax.eval_shape(lambda: init(config))
        jaxpr = jax.make_jaxpr(lambda p: forward(config, p, batch)[1].last_hidden_state)(params)
        return len(str(jaxpr).splitlines())

    assert equations(24) == equations(3)


@pytest.mark.slow
def test_gradients_reach_every_parameter_but_padding_ids():
    config, batch = tiny_model(), random_batch()
    batch = {name: jnp.asarray(x) for name, x in batch.items()}

    def loss(params: Any) -> jax.Array:
        model, output = forward(config, params, batch)
        x = output.last_hidden_state
        return jnp.sum(model.mlm_logits(x, batch["mlm_positions"])[..., 7]) + jnp.sum(
            model.sop_logits(x, batch["cls_positions"])[..., 1]
        )

    grads = jax.grad(loss)(init(config))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        # A bias on every key shifts all scores of a query alike: softmax does not see it.
        if not path_of(path).endswith("key/bias"):
            assert float(jnp.abs(grad).max()) > 0, path_of(path)


@pytest.mark.parametrize(
    ("rows", "d_in", "d_out"), [((2, 3), 4, 8), ((6,), 8, 4), ((1, 2, 3), 5, 5)]
)
def test_own_gradients_are_those_of_a_plain_product(rows, d_in, d_out):
    """Of either operand being the wider one, and of any leading axes."""
    draw = np.random.default_rng(0)
    x, kernel, bias, weight = (
        jnp.asarray(draw.normal(size=shape), jnp.float32)
        for shape in ((*rows, d_in), (d_in, d_out), (d_out,), (*rows, d_out))
    )

    def ours(x, kernel, bias):
        y = product(x.reshape(-1, d_in), kernel).reshape(*rows, d_out)
        return jnp.sum(jnp.sin(add_bias(y, bias)) * weight)

    def plain(x, kernel, bias):
        y = jnp.einsum("...d,df->...f", x, kernel) + jnp.broadcast_to(bias, (*rows, d_out))
        return jnp.sum(jnp.sin(y) * weight)

    found = jax.value_and_grad(ours, argnums=(0, 1, 2))(x, kernel, bias)
    expected = jax.value_and_grad(plain, argnums=(0, 1, 2))(x, kernel, bias)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )


def plain_norm(x, scale, bias):
    mean = jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), -1, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-3) * scale[None, None] + bias[None, None]


@pytest.mark.parametrize(
    ("ours", "plain", "shapes"),
    [
        (
            lambda x, scale, bias: layer_normalize(x, scale, bias, 1e-3),
            plain_norm,
            ((2, 3, 8), (8,), (8,)),
        ),
        (softmax, lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x), -1, keepdims=True), ((2, 3, 8),)),
        (
            keeping_slope(lambda x: jax.nn.gelu(x, approximate=True)),
            lambda x: 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
            ((2, 3, 8),),
        ),
    ],
    ids=["layer norm", "softmax", "activation"],
)
def test_own_gradients_are_those_of_the_formula(ours, plain, shapes):
    draw = np.random.default_rng(0)
    operands = [jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in shapes]
    weight = jnp.asarray(draw.normal(size=shapes[0]), jnp.float32)

    def loss(function: Any) -> Any:
        return lambda *given: jnp.sum(jnp.sin(function(*given)) * weight)

    every = tuple(range(len(shapes)))
    found, expected = (
        jax.value_and_grad(loss(function), argnums=every)(*operands) for function in (ours, plain)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected
    )


def test_a_layer_keeps_little_for_its_gradient():
    """One softmax, and of the wide arrays one slope and one operand."""
    config = tiny_model(num_hidden_layers=3, hidden_size=48, intermediate_size=96)
    batch = random_batch()
    T = batch["input_ids"].shape[1]
    _, pull_back = jax.vjp(
        lambda params: forward(config, params, batch)[1].last_hidden_state, init(config)
    )
    # A layer's are stacked over layers.
    kept = [a.shape for a in jax.tree.leaves(pull_back) if a.shape[:1] == (3,) and a.ndim > 2]
    assert sum(shape[-2:] == (T, T) for shape in kept) == 1, kept
    assert sum(shape[-1] == 96 for shape in kept) == 2, kept
