"""Building blocks shared by all modules: dense layers, norm, activations, embeddings."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from albert_jax.config import ModelConfig, TrainConfig
from albert_jax.config.choices import one_of
from albert_jax.model.custom_gradients import add_bias, keeping_slope, layer_normalize, product

KEPT = "product"  # what `remat=dots` keeps for the backward pass
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_new": keeping_slope(lambda x: jax.nn.gelu(x, approximate=True)),
    "gelu": keeping_slope(lambda x: jax.nn.gelu(x, approximate=False)),
    "relu": jax.nn.relu,
    "silu": keeping_slope(jax.nn.silu),
    "tanh": jnp.tanh,
}


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the activation function of that name.

    Raises:
      ValueError: if there is no such function.
    """
    return ACTIVATIONS[one_of("model.hidden_act", name, ACTIVATIONS)]


class Compute(NamedTuple):
    """How the network is computed, which affects only rounding; see `TrainConfig`."""

    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    remat: str = "none"
    attention: str = "auto"
    unroll: int = 1

    @classmethod
    def of(cls, train: TrainConfig) -> "Compute":
        """Returns the options in the training settings."""
        return cls(jnp.dtype(train.dtype), train.remat, train.attention, train.unroll)


def truncated_normal(config: ModelConfig) -> nnx.Initializer:
    """Returns TensorFlow's truncated normal: cut at two standard deviations, not rescaled."""
    return nnx.initializers.truncated_normal(config.initializer_range)


class Dense(nnx.Module):
    """A linear layer with a bias; the product is computed in `dtype`."""

    def __init__(
        self, d_in: int, d_out: int, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        """Creates kernel_DF and bias_F."""
        self.dtype = dtype
        self.kernel = nnx.Param(truncated_normal(config)(rngs.params(), (d_in, d_out)))
        self.bias = nnx.Param(jnp.zeros(d_out))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [...,D] to [...,F]."""
        y_NF = add_bias(self._product(x), self.bias[...].astype(self.dtype))
        return checkpoint_name(y_NF, KEPT).reshape(*x.shape[:-1], -1)

    def product(self, x: jax.Array) -> jax.Array:
        """Maps [...,D] to [...,F] without the bias."""
        return checkpoint_name(self._product(x), KEPT).reshape(*x.shape[:-1], -1)

    def _product(self, x: jax.Array) -> jax.Array:
        x_ND = x.astype(self.dtype).reshape(-1, x.shape[-1])
        return product(x_ND, self.kernel[...].astype(self.dtype))


class LayerNorm(nnx.Module):
    """Layer norm computed in float32, its result cast to `dtype`."""

    def __init__(self, size: int, config: ModelConfig, dtype: jnp.dtype):
        """Creates scale_D of ones and bias_D of zeros."""
        self.dtype, self.eps = dtype, config.layer_norm_eps
        self.scale = nnx.Param(jnp.ones(size))
        self.bias = nnx.Param(jnp.zeros(size))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [...,D] to the same shape."""
        return layer_normalize(x, self.scale[...], self.bias[...], self.eps).astype(self.dtype)


def dropout(x: jax.Array, rate: float, dropout_keys_B: jax.Array | None) -> jax.Array:
    """Sets elements of x [B,...] to zero with probability `rate` and rescales the rest.

    Each row draws with its own key, so the draws depend neither on the devices nor on the
    accumulation part that a row is in. Without keys there is no dropout.
    """
    if dropout_keys_B is None or rate == 0.0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(dropout_keys_B)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def split_keys(dropout_keys_B: jax.Array | None, count: int) -> jax.Array | list[None]:
    """Returns `count` dropout_keys_B from each row's key, or as many `None` if there are none."""
    if dropout_keys_B is None:
        return [None] * count
    return jax.vmap(lambda key: jax.random.split(key, count), out_axes=1)(dropout_keys_B)


class Embeddings(nnx.Module):
    """Normed sum of token, position and token type embeddings: ids [B,T] to x_BTE."""

    def __init__(self, config: ModelConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Creates the three tables, each [count, E]."""

        def table(count: int) -> nnx.Embed:
            init = truncated_normal(config)
            return nnx.Embed(
                count, config.embedding_size, embedding_init=init, dtype=dtype, rngs=rngs
            )

        self.dropout_rate = config.hidden_dropout_prob
        self.token_embed = table(config.vocab_size)
        self.position_embed = table(config.max_position_embeddings)
        self.type_embed = table(config.type_vocab_size)
        self.norm = LayerNorm(config.embedding_size, config, dtype)

    @jax.named_scope("embeddings")
    def __call__(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        dropout_keys_B: jax.Array | None,
    ) -> jax.Array:
        """Embeds int32 ids [B,T] as x_BTE; dropout is on if `dropout_keys_B` are given."""
        x_BTE = self.token_embed(input_ids)
        x_BTE += self.position_embed(position_ids) + self.type_embed(token_type_ids)
        return dropout(self.norm(x_BTE), self.dropout_rate, dropout_keys_B)
