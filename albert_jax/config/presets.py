"""Settings of the published models: ALBERT's sizes and the BERT baseline."""

from typing import Any

# name: (hidden, feed-forward, heads, layers). Source: arXiv:1909.11942, Table 1; the
# published xlarge checkpoint has 16 heads, whereas the table says 32.
_ALBERT_SIZES = {
    "base": (768, 3072, 12, 12),
    "large": (1024, 4096, 16, 24),
    "xlarge": (2048, 8192, 16, 24),
    "xxlarge": (4096, 16384, 64, 12),
}


def albert_preset(size: str, version: str = "v2") -> dict[str, Any]:
    """Returns the model settings of a published ALBERT; v1 has dropout 0.1 except for xxlarge.

    Raises:
      ValueError: if the size or version was not published.
    """
    if size not in _ALBERT_SIZES or version not in ("v1", "v2"):
        raise ValueError(
            f"there is no ALBERT {size!r} {version!r}: sizes are {', '.join(_ALBERT_SIZES)}; "
            "versions are v1, v2"
        )
    hidden, feed_forward, heads, layers = _ALBERT_SIZES[size]
    dropout = 0.1 if version == "v1" and size != "xxlarge" else 0.0
    return {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def bert_preset(size: str) -> dict[str, Any]:
    """Returns the BERT baseline's model settings: no sharing, no embedding factorization.

    Source: arXiv:1810.04805, section 3 (base and large have ALBERT's dimensions).

    Raises:
      ValueError: if the size is neither base nor large.
    """
    if size not in ("base", "large"):
        raise ValueError(f"there is no BERT {size!r}: sizes are base, large")
    preset = albert_preset(size, "v1")  # the dimensions and the dropout are the same
    return preset | {"share": "none", "embedding_size": preset["hidden_size"]}
