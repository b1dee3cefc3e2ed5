"""The decoder: it sees no later token, and writes token by token what it computes at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support.translation import built, logits_of, pair_batch, translation_model

from albert_jax.model import Albert, Compute
from albert_jax.model.decoder import Step
from albert_jax.model.flops import decoder_flops, model_flops

SLOW = pytest.mark.slow
SHARES = ("all", "attention", pytest.param("ffn", marks=SLOW), pytest.param("none", marks=SLOW))


@pytest.mark.parametrize("share_encoder", [True, False])
@pytest.mark.parametrize("share", SHARES)
def test_cached_logits_are_those_of_the_whole_target(share, share_encoder):
    groups = {"num_hidden_groups": 2, "inner_group_num": 2} if share == "attention" else {}
    model = built(translation_model(share_encoder, share=share, **groups))
    batch = pair_batch()
    rows, length = batch["target_ids"].shape
    memory, whole = model.memory(batch), logits_of(model, batch)
    beams = 3  # hypotheses of a source, here all the same
    cache = model.decoder.new_cache((rows, length + 2, beams), *model.cache_shape)
    places, own = jnp.arange(length + 2), jnp.eye(beams, dtype=bool)
    for t in range(length):
        tokens = jnp.repeat(batch["target_ids"][:, t : t + 1], beams, axis=1)
        seen = (places <= t)[None, None, :, None] & own[None, :, None, :]
        step = Step(cache, t, jnp.broadcast_to(seen, (rows, beams, length + 2, beams)))
        logits, cache = model.decode_step(tokens, memory, step)
        for k in range(beams):
            np.testing.assert_allclose(logits[:, k], whole[:, t], atol=3e-5, rtol=1e-5)


def test_no_position_sees_a_later_token():
    model = built(translation_model(share_embeddings=False, embedding_size=32))
    batch = pair_batch(rows=2)
    memory = model.memory(batch)
    x_BTE = model.decoder.embeddings.token_embed(batch["target_ids"])

    def hidden(x_BTE: jax.Array, t: int) -> jax.Array:
        return model.decoder(x_BTE, memory, model.encoder, None)[0][:, t].sum()

    length = x_BTE.shape[1]
    for t in range(length):
        seen = np.abs(jax.grad(hidden)(x_BTE, t)).sum((0, 2)) > 0
        np.testing.assert_array_equal(seen, np.arange(length) <= t)


def test_padding_of_the_source_changes_nothing():
    model, batch = built(translation_model()), pair_batch()
    padded = {
        name: np.pad(a, ((0, 0), (0, 5))) if name in ("input_ids", "attention_mask") else a
        for name, a in batch.items()
    }
    padded["token_type_ids"] = np.zeros_like(padded["input_ids"])
    padded["input_ids"][:, -5:] = 17
    np.testing.assert_allclose(logits_of(model, padded), logits_of(model, batch), atol=2e-5)


def test_the_source_matters():
    model, batch = built(translation_model()), pair_batch()
    other = dict(batch, input_ids=batch["input_ids"][::-1].copy())
    other["attention_mask"] = batch["attention_mask"][::-1].copy()
    assert np.abs(logits_of(model, other) - logits_of(model, batch)).max() > 0.1


def count(model: Albert) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_what_is_shared_has_no_weights_of_its_own():
    shared, own = built(translation_model()), built(translation_model(share_encoder=False))
    block = nnx.state(shared.encoder.group_0.inner_group_0, nnx.Param)
    block_size = sum(leaf.size for leaf in jax.tree.leaves(block))
    projection = shared.encoder.embed_proj
    assert count(own) - count(shared) == block_size + projection.kernel.size + projection.bias.size
    separate = built(translation_model(share_embeddings=False))
    tables = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(shared.embeddings, nnx.Param)))
    assert count(separate) - count(shared) == tables


def test_a_shared_decoder_may_have_another_depth():
    model, batch = built(translation_model(layers=2)), pair_batch()
    assert count(model) == count(built(translation_model(layers=4)))
    assert np.isfinite(logits_of(model, batch)).all()
    two, four = (logits_of(built(translation_model(layers=n)), batch) for n in (2, 4))
    assert np.abs(two - four).max() > 0.1


@pytest.mark.parametrize("share", ["none", pytest.param("all", marks=SLOW)])
@pytest.mark.parametrize(
    "compute",
    [
        Compute(remat="dots"),
        pytest.param(Compute(unroll=4), marks=SLOW),
        pytest.param(Compute(remat="full"), marks=SLOW),
    ],
)
def test_how_it_is_computed_changes_neither_values_nor_gradients(compute, share):
    config, batch = translation_model(share_encoder=share == "all", share=share), pair_batch()

    def loss(compute: Compute) -> tuple[jax.Array, dict]:
        model = Albert(config, ("decoder", "mlm"), compute=compute, rngs=nnx.Rngs(0))
        graphdef, params = nnx.split(model, nnx.Param)

        def of(params: nnx.State) -> jax.Array:
            logits = logits_of(nnx.merge(graphdef, params), batch)
            return jnp.sum(jax.nn.logsumexp(logits, axis=-1) * batch["target_weights"])

        return jax.value_and_grad(of)(params)

    expected, found = loss(Compute()), loss(compute)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found[1], expected[1]
    )


def test_flops_count_the_products_of_the_program():
    """Of pairs without padding, against XLA's own count of the forward pass."""
    config = translation_model(share_encoder=False, share="none", hidden_act="relu")
    batch = pair_batch(rows=8, sources=32, targets=32)
    batch["target_weights"][:] = batch["attention_mask"][:] = 1
    compute = Compute(unroll=4)  # XLA counts a loop's body once
    graphdef, params = nnx.split(
        Albert(config, ("decoder", "mlm"), compute=compute, rngs=nnx.Rngs(0)), nnx.Param
    )
    program = jax.jit(lambda params: logits_of(nnx.merge(graphdef, params), batch))
    cost = program.lower(params).compile().cost_analysis()
    pairs = 8 * 2 * 32 * 32  # the causal half is computed too
    tokens, cross = 8 * 32, 8 * 32 * 32
    ours = model_flops(config, tokens, cross, 0, 0)
    ours += decoder_flops(config, tokens, pairs, cross, tokens)
    assert cost is not None
    assert 0.88 < ours / 3 / cost["flops"] <= 1.0
