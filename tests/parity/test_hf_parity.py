"""The same numbers as Hugging Face transformers: forward, and gradients of every parameter."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from support.hf_models import hf_model
from support.models import tiny_model

from albert_jax.checkpoints.formats.huggingface import read_hf
from albert_jax.checkpoints.formats.variables import to_variables
from albert_jax.config import ModelConfig
from albert_jax.model import PRETRAINING, Albert, Compute
from albert_jax.tasks.base import cross_entropy

pytestmark = [pytest.mark.torch, pytest.mark.slow]

B, T = 3, 17
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
GRID = {
    "default": {},
    "two_groups": {"num_hidden_groups": 2},
    "three_groups_of_unequal_length": {"num_hidden_groups": 3},
    "inner_groups": {"inner_group_num": 2},
    "groups_and_inner_groups": {
        "num_hidden_groups": 3,
        "inner_group_num": 2,
        "num_hidden_layers": 5,
    },
    "unshared": {"num_hidden_groups": 4},
    "embedding_of_hidden_size": {"embedding_size": 32},
    "odd_sizes": {
        "vocab_size": 97,
        "embedding_size": 7,
        "hidden_size": 33,
        "num_attention_heads": 3,
        "intermediate_size": 51,
        "max_position_embeddings": 19,
    },
    "more_token_types": {"type_vocab_size": 3},
    "large_eps": {"layer_norm_eps": 1e-5},
    **{act: {"hidden_act": act} for act in ("gelu", "relu", "silu", "tanh")},
}
# The others differ from these in one setting.
FAST = {"default", "groups_and_inner_groups", "odd_sizes"}
# Other names that transformers has for activations of ours, and what they are read as.
ACTIVATIONS = {"gelu_fast": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu_python": "gelu",
               "swish": "silu"}  # fmt: skip


def make_batch(config: ModelConfig) -> dict[str, np.ndarray]:
    """Rows of 17, 12 and 5 pieces: pairs with padding, pieces to predict, orders to tell."""
    rng = np.random.default_rng(0)
    mask = (np.arange(T)[None] < np.array([T, 12, 5])[:, None]).astype(np.int32)
    types = np.arange(T)[None] >= np.array([9, 4, 2])[:, None]
    masked = (rng.random((B, T)) < 0.3) & (mask > 0)
    masked[:, 1] = True
    return {
        "input_ids": (rng.integers(1, config.vocab_size, (B, T)) * mask).astype(np.int32),
        "token_type_ids": (types * mask * (config.type_vocab_size - 1)).astype(np.int32),
        "attention_mask": mask,
        "labels": np.where(masked, rng.integers(1, config.vocab_size, (B, T)), -100),
        "sentence_order_label": np.array([1, 0, 1]),
    }


def run_theirs(model: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of AlbertForPreTraining; its parameters then hold the gradients of the loss."""
    tensors = {name: torch.from_numpy(array).long() for name, array in batch.items()}
    output = model(**tensors, output_hidden_states=True)
    output.loss.backward()
    pooled = model.albert.pooler_activation(model.albert.pooler(output.hidden_states[-1][:, 0]))
    outputs = {
        "hidden": torch.stack(output.hidden_states),
        "pooled": pooled,
        "mlm": output.prediction_logits,
        "sop": output.sop_logits,
        "loss": output.loss,
    }
    return {name: tensor.detach().float().numpy() for name, tensor in outputs.items()}


def make_ours(
    config: ModelConfig, batch: dict[str, np.ndarray], dtype: Any = jnp.float32
) -> Callable[[Any], tuple[jax.Array, dict[str, jax.Array]]]:
    """A function of our parameters with the same outputs."""
    abstract = nnx.eval_shape(
        lambda: Albert(config, PRETRAINING, compute=Compute(jnp.dtype(dtype)), rngs=nnx.Rngs(0))
    )
    graphdef, _ = nnx.split(abstract, nnx.Param)
    positions_BT = jnp.broadcast_to(jnp.arange(T)[None], (B, T))
    cls_B1 = jnp.zeros((B, 1), jnp.int32)
    ids, types, mask = (jnp.asarray(batch[name]) for name in INPUTS)
    weights_BT = jnp.asarray(batch["labels"] >= 0, jnp.float32)
    labels_BT = jnp.asarray(np.maximum(batch["labels"], 0))
    orders_B1 = jnp.asarray(batch["sentence_order_label"])[:, None]

    def forward(params: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        model = nnx.merge(graphdef, params)
        x_BTD, hidden_LBTD = model(ids, types, positions_BT, mask, keep_hidden=True)
        mlm_BTV = model.mlm_logits(x_BTD, positions_BT)
        sop_B12 = model.sop_logits(x_BTD, cls_B1)
        mlm_loss, _ = cross_entropy(mlm_BTV, labels_BT, weights_BT)
        sop_loss, _ = cross_entropy(sop_B12, orders_B1, jnp.ones((B, 1)))
        loss = mlm_loss / weights_BT.sum() + sop_loss / B
        pooled_BD = model.pool(x_BTD, cls_B1)[:, 0]
        outputs = {"hidden": hidden_LBTD, "pooled": pooled_BD, "mlm": mlm_BTV}
        return loss, outputs | {"sop": sop_B12[:, 0], "loss": loss}

    return forward


def differences(
    ours: dict[str, Any], theirs: dict[str, np.ndarray], batch: dict[str, np.ndarray], step: int
) -> dict[str, float]:
    """Largest absolute differences at real pieces; of padding we compute something else.

    Theirs keeps the state after every inner group, ours after every `step` of them.
    """
    real = batch["attention_mask"] > 0
    found = {}
    for name, expected in theirs.items():
        difference = np.abs(np.asarray(ours[name], np.float32) - (
            expected[::step] if name == "hidden" else expected
        ))  # fmt: skip
        if name in ("hidden", "mlm"):
            difference = difference[..., real, :]
        found[name] = float(difference.max())
    return found


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in GRID],
)
def test_forward_and_gradients_agree(name, tmp_path):
    config = tiny_model(**GRID[name])
    model, batch = hf_model(config), make_batch(config)
    model.save_pretrained(tmp_path)
    weights = read_hf(tmp_path)
    assert weights.config.project_embeddings == (config.embedding_size == config.hidden_size)
    theirs = run_theirs(model, batch)
    forward = jax.jit(jax.value_and_grad(make_ours(weights.config, batch), has_aux=True))
    (_, ours), gradients = forward(weights.params)

    found = differences(ours, theirs, batch, config.inner_group_num)
    assert max(found.values()) <= 1e-5, found

    mapped = to_variables(jax.tree.map(np.asarray, gradients), weights.config, "albert")
    expected = {name: p.grad.numpy() for name, p in model.named_parameters()}
    assert mapped.keys() == expected.keys()
    for name, gradient in expected.items():
        size, error = np.linalg.norm(gradient), np.linalg.norm(mapped[name] - gradient)
        if name.endswith("key.bias"):
            # The same for every key, it shifts all scores of a query and changes no softmax:
            # its gradient is 0, and what is computed is rounding.
            assert max(size, error) <= 1e-6, name
        else:
            assert error <= 1e-4 * size, (name, error / size)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_other_names_of_activations(act, tmp_path):
    config = tiny_model(num_hidden_layers=1)
    model, batch = hf_model(config, hidden_act=act), make_batch(config)
    model.save_pretrained(tmp_path)
    weights = read_hf(tmp_path)
    assert weights.config.hidden_act == ACTIVATIONS[act]
    _, ours = jax.jit(make_ours(weights.config, batch))(weights.params)
    found = differences(ours, run_theirs(model, batch), batch, 1)
    assert max(found.values()) <= 1e-5, found


def test_bfloat16_is_as_near_to_float32_as_theirs(tmp_path):
    """Over several models: of one alone, the six logits of sentence order are luck."""
    config = tiny_model(hidden_size=64, embedding_size=32, intermediate_size=256)
    names, squares = ("hidden", "pooled", "mlm", "sop"), []
    for seed in range(6):
        model, batch = hf_model(config, seed=seed), make_batch(config)
        model.save_pretrained(tmp_path / str(seed))
        weights = read_hf(tmp_path / str(seed))
        exact = run_theirs(model, batch)
        theirs = run_theirs(model.bfloat16(), batch)
        _, ours = jax.jit(make_ours(weights.config, batch, jnp.bfloat16))(weights.params)
        real = batch["attention_mask"] > 0

        def square(
            outputs: dict[str, Any], name: str, exact: Any = exact, real: Any = real
        ) -> Any:
            difference = np.asarray(outputs[name], np.float32) - exact[name]
            chosen = difference[..., real, :] if name in ("hidden", "mlm") else difference
            return np.mean(np.square(chosen))

        squares.append([[square(side, name) for name in names] for side in (ours, theirs)])
    our_errors, their_errors = np.sqrt(np.mean(squares, axis=0))
    # bfloat16 keeps 8 bits; layer norms keep the states near 1.
    assert (our_errors > 0).all()
    assert (our_errors < 2**-6).all()
    assert (our_errors <= 1.25 * their_errors).all(), (our_errors, their_errors)
