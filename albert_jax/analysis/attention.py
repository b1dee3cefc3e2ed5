"""Attention maps, recomputed from a layer's input and parameters, and their entropy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import softmax, xlogy

from albert_jax.config import ModelConfig
from albert_jax.model import is_stacked, layers_of_groups


def layer_parameters(params: Mapping[str, Any], config: ModelConfig, layer: int) -> dict[str, Any]:
    """Returns a layer's parameters (layers count from 0), shared or its own, as a nested dict.

    Raises:
      ValueError: if the model's layers consist of several blocks each.
    """
    if config.inner_group_num != 1:
        raise ValueError(
            f"model.inner_group_num={config.inner_group_num}: no hidden state is kept between the "
            "blocks of a layer to compute attention from; only 1 is supported"
        )
    counts = layers_of_groups(config.num_hidden_layers, config.num_hidden_groups)
    ends = np.cumsum(counts)
    group = int(np.searchsorted(ends, layer, side="right"))
    place = layer - (ends[group] - counts[group])
    inner = params["encoder"][f"group_{group}"]["inner_group_0"]
    path = f"encoder/group_{group}/inner_group_0"

    def own(tree: Any, name: str) -> Any:
        if isinstance(tree, Mapping):
            return {key: own(value, f"{name}/{key}") for key, value in tree.items()}
        array = np.asarray(tree)
        return array[place] if is_stacked(name, config.share) else array

    return own(inner, path)


def attention_maps(
    params: Mapping[str, Any],
    config: ModelConfig,
    hidden_states: np.ndarray,
    mask_BT: np.ndarray,
) -> np.ndarray:
    """Returns each token's attention: probabilities over S that sum to 1.

    Args:
      params: the model's parameters.
      config: its sizes.
      hidden_states: float [L+1,B,T,D], the encoder's input and each layer's output.
      mask_BT: 0 on padding, which no token attends to.

    Returns:
      float32 [L,B,N,T,S].

    Raises:
      ValueError: for the same reasons as `layer_parameters`.
    """
    maps = []
    for layer, x_BTD in enumerate(hidden_states[:-1]):
        attention = layer_parameters(params, config, layer)["attention"]
        q_BTNH, k_BSNH = (
            _heads(x_BTD, attention[name], config.num_attention_heads) for name in ("query", "key")
        )
        logits_BNTS = np.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH) / np.sqrt(q_BTNH.shape[-1])
        hidden_B11S = np.asarray(mask_BT)[:, None, None] == 0
        maps.append(softmax(np.where(hidden_B11S, -np.inf, logits_BNTS), axis=-1))
    return np.stack(maps).astype(np.float32)


def head_entropy(maps: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
    """Returns the mean entropy in nats of each head's attention, float64 [L,N].

    0 means that a head attends to a single token, ln(n) that it attends equally to all n.

    Args:
      maps: float [L,B,N,T,S], from `attention_maps`.
      mask_BT: 0 on padding, whose own attention is excluded.
    """
    entropy_LBNT = -xlogy(maps, maps).sum(axis=-1, dtype=np.float64)
    weights_BT = np.asarray(mask_BT, np.float64)
    return np.einsum("LBNT,BT->LN", entropy_LBNT, weights_BT) / weights_BT.sum()


def _heads(x_BTD: np.ndarray, project: Mapping[str, np.ndarray], num_heads: int) -> np.ndarray:
    y_BTD = x_BTD @ project["kernel"] + project["bias"]
    return y_BTD.reshape(*y_BTD.shape[:2], num_heads, -1)
