"""Model FLOPs a token against the formula, and the peaks of chips."""

import pytest

from albert_jax.config import ModelConfig
from albert_jax.config.presets import albert_preset
from albert_jax.model.flops import model_flops, peak_flops


@pytest.mark.parametrize(("size", "expected"), [("base", 570e6), ("xxlarge", 14.8e9)])
def test_flops_a_token_are_the_formula(size, expected):
    # Forward L(24H² + 4SH) + 2EH + p(2HE + 2EV) + 2H²/S a token, and twice that backward.
    config = ModelConfig(**albert_preset(size))
    H, L, E, V, S, p = (
        config.hidden_size, config.num_hidden_layers, 128, 30000, 512, 0.15
    )  # fmt: skip
    forward = (
        L * (24 * H * H + 4 * S * H) + 2 * E * H + p * (2 * H * E + 2 * E * V) + 2 * H * H / S
    )
    ours = model_flops(config, tokens=S, pairs=S * S, predictions=p * S, chunks=1) / S
    assert ours == pytest.approx(3 * forward)
    assert ours == pytest.approx(expected, rel=0.01)


def test_peaks():
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak_flops("TPU v5 lite", "bfloat16") == 197e12
    assert peak_flops("cpu", "bfloat16") is None
    assert peak_flops("NVIDIA H100 80GB HBM3", "float32") is None
