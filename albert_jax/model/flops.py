"""Model FLOPs of a step, and the peak FLOP/s of a device."""

from albert_jax.config import ModelConfig


def model_flops(
    config: ModelConfig, tokens: float, pairs: float, predictions: float, chunks: float
) -> float:
    """Returns the FLOPs of one training pass: the forward pass, plus twice that for the backward.

    Counts only matrix products, with 2 operations per multiply-add, and no work on padding.

    Args:
      config: sizes.
      tokens: real tokens.
      pairs: attended (query, key) pairs, Σ over chunks of length².
      predictions: masked tokens.
      chunks: pooled chunks.
    """
    D, E, F, V = (
        config.hidden_size,
        config.embedding_size,
        config.intermediate_size,
        config.vocab_size,
    )
    layers = config.num_hidden_layers * config.inner_group_num
    encoder = layers * (tokens * (8 * D * D + 4 * D * F) + pairs * 4 * D)
    projection = 2 * E * D * tokens if config.has_projection else 0
    mlm = predictions * (2 * D * E + 2 * E * V)
    return 3 * (encoder + projection + mlm + chunks * 2 * D * D)


def decoder_flops(
    config: ModelConfig, tokens: float, pairs: float, cross_pairs: float, sources: float
) -> float:
    """Returns the FLOPs of one training pass of the decoder and its output, as `model_flops` does.

    Args:
      config: sizes.
      tokens: target tokens.
      pairs: Σ over targets of length²; a causal query sees half of them.
      cross_pairs: Σ over pairs of source length · target length.
      sources: source tokens.
    """
    D, E, F, V = (
        config.hidden_size,
        config.embedding_size,
        config.intermediate_size,
        config.vocab_size,
    )
    layers = config.decoder_layers * config.inner_group_num
    per_token = 12 * D * D + 4 * D * F  # self-attention, the query and output of cross, ffn
    memories = layers if config.share in ("ffn", "none") else config.num_hidden_groups
    blocks = layers * (tokens * per_token + (pairs / 2 + cross_pairs) * 4 * D)
    projection = 2 * E * D * tokens if config.has_projection else 0
    output = tokens * (2 * D * E + 2 * E * V)
    return 3 * (blocks + memories * sources * 4 * D * D + projection + output)


# Dense bfloat16 peak of one device, in FLOP/s. Source: the vendors' data sheets.
_PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "TPU v3": 123e12 / 2,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Returns the peak FLOP/s of one device for bfloat16 products; None if unknown."""
    if dtype != "bfloat16":
        return None
    names = [name for name in _PEAK_FLOPS if device_kind.startswith(name)]
    return _PEAK_FLOPS[max(names, key=len)] if names else None
