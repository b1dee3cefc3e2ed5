"""Small parts shared by every module: dense layers, norm, activations, embeddings."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from albert_jax.config import ModelConfig

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


def truncated_normal(config: ModelConfig) -> nnx.Initializer:
    """Normal, cut at two standard deviations and not rescaled, as TensorFlow has it."""
    return nnx.initializers.truncated_normal(config.initializer_range)


def dense(
    d_in: int, d_out: int, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.Linear:
    """A biased linear layer; the product is taken in `dtype`."""
    init = truncated_normal(config)
    return nnx.Linear(d_in, d_out, kernel_init=init, dtype=dtype, rngs=rngs)


def layer_norm(size: int, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Layer norm computed in float32, its result cast to `dtype`."""
    # The fast variance, E[x²] - E[x]², loses digits: not exact.
    return nnx.LayerNorm(
        size, epsilon=config.layer_norm_eps, use_fast_variance=False, dtype=dtype, rngs=rngs
    )


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Sets elements to zero with probability `rate` and rescales; no key, no dropout."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


def split_keys(key: jax.Array | None, count: int) -> list[jax.Array | None]:
    """`count` keys from one, or as many `None` where there is none."""
    return [None] * count if key is None else list(jax.random.split(key, count))


class Embeddings(nnx.Module):
    """Token + position + token type, normed: ids [B,T] to x_BTE."""

    def __init__(self, config: ModelConfig, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Makes the three tables, each [count, E]."""

        def table(count: int) -> nnx.Embed:
            init = truncated_normal(config)
            return nnx.Embed(
                count, config.embedding_size, embedding_init=init, dtype=dtype, rngs=rngs
            )

        self.dropout_rate = config.hidden_dropout_prob
        self.token_embed = table(config.vocab_size)
        self.position_embed = table(config.max_position_embeddings)
        self.type_embed = table(config.type_vocab_size)
        self.norm = layer_norm(config.embedding_size, config, dtype, rngs)

    def __call__(
        self,
        input_ids: jax.Array,
        token_type_ids: jax.Array,
        position_ids: jax.Array,
        key: jax.Array | None,
    ) -> jax.Array:
        """Embeds int32 ids [B,T] as x_BTE."""
        x_BTE = self.token_embed(input_ids)
        x_BTE += self.position_embed(position_ids) + self.type_embed(token_type_ids)
        return dropout(self.norm(x_BTE), self.dropout_rate, key)
