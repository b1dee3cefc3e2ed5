"""What a model computes for a batch: compiled here, or read from an export."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from albert_jax.config import ModelConfig
from albert_jax.model.albert import Albert, abstract_model
from albert_jax.model.layers import Compute

Batch = Mapping[str, Any]
Outputs = dict[str, np.ndarray]
Function = Callable[[Any, Any], dict[str, jax.Array]]  # from (model, batch)

TEXT = ("input_ids", "token_type_ids", "attention_mask")
_COMPUTE = Compute()
_TASKS = ("classification", "multiple_choice", "token_classification", "question_answering")
_SMALLEST = 8  # widths are multiples of it


@dataclass(frozen=True)
class Program:
    """A function from a batch to outputs, all NumPy arrays by name.

    Attributes:
      run: the function.
      inputs: the arrays of a batch that it takes, int32; None if it takes all there are.
      any_shape: whether a new shape costs nothing. Otherwise each is compiled first, which takes
        about a second.
    """

    run: Callable[[Batch], Outputs]
    inputs: tuple[str, ...] | None = None
    any_shape: bool = False

    def __call__(self, batch: Batch) -> Outputs:
        """Returns the outputs for a batch, which may hold other arrays too."""
        if self.inputs is not None:
            batch = {name: np.asarray(batch[name], np.int32) for name in self.inputs}
        return self.run(batch)

    def width(self, length: int, longest: int) -> int:
        """Returns the width [tokens] to pad a batch to, at most `longest`."""
        return length if self.any_shape else prediction_width(length, longest)

    def rows(self, count: int, most: int) -> int:
        """Returns the number of rows to pad a batch to, at most `most`."""
        rows = count if self.any_shape else 1 << max(count - 1, 0).bit_length()
        return min(rows, most)


def prediction_width(length: int, longest: int) -> int:
    """Returns the least of 8, 16, …, 64, 80, …, 128, 160, …, 256, 320, … that is enough.

    Few shapes are compiled, 20 up to 512, and from 64 tokens on less than a fifth is padding.
    """
    step = max(_SMALLEST, (1 << (length - 1).bit_length()) // 8)
    return min(-(-length // step) * step, longest)


def prediction_widths(longest: int) -> list[int]:
    """Returns all of them up to `longest`."""
    return sorted({prediction_width(length, longest) for length in range(1, longest + 1)})


def is_task(kind: str) -> bool:
    """Returns whether an export of a model computes its task's outputs, or else its encoder's."""
    return kind in _TASKS


def input_axes(kind: str, heads: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns the axes of each array that an export takes, all int32.

    Besides the text, question answering takes `begins`, -1 where no answer may begin, and a
    model that fills masks takes `mlm_positions`. Multiple choice has a row for each option.
    """
    rows = ("B", "C", "T") if kind == "multiple_choice" else ("B", "T")
    axes: dict[str, tuple[str, ...]] = dict.fromkeys(TEXT, rows)
    if kind == "question_answering":
        return axes | {"begins": rows}
    return axes | {"mlm_positions": ("B", "P")} if fills_masks(heads) else axes


def fills_masks(heads: Sequence[str]) -> bool:
    """Returns whether a model with these heads has one for masks; a decoder's output is none."""
    return "mlm" in heads and "decoder" not in heads


def encoder_outputs(
    model: Albert, batch: Batch, heads: Sequence[str], keep_hidden: bool = False
) -> dict[str, jax.Array]:
    """Returns what a pretrained model says of a batch.

    Args:
      model: with the heads.
      batch: see `input_axes`.
      heads: what to compute besides the encoder.
      keep_hidden: whether to return every layer's output.

    Returns:
      `last_hidden_state` x_BTD; `hidden_states` [L+1,B,T,D] if asked for; by heads
      `pooled_output` [B,D], `mlm_logits` [B,P,V] and `sop_logits` [B,2]. All are float32.
    """
    ids_BT, types_BT, mask_BT = (batch[name] for name in TEXT)
    positions_BT = jnp.broadcast_to(jnp.arange(ids_BT.shape[1])[None], ids_BT.shape)
    x_BTD, hidden_LBTD = model(ids_BT, types_BT, positions_BT, mask_BT, keep_hidden=keep_hidden)
    found = {"last_hidden_state": x_BTD}
    if hidden_LBTD is not None:
        found["hidden_states"] = hidden_LBTD
    cls_B1 = jnp.zeros_like(ids_BT[:, :1])
    if "pooler" in heads:
        found["pooled_output"] = model.pool(x_BTD, cls_B1)[:, 0]
    if fills_masks(heads):
        found["mlm_logits"] = model.mlm_logits(x_BTD, batch["mlm_positions"])
    if "sop" in heads:
        found["sop_logits"] = model.sop_logits(x_BTD, cls_B1)[:, 0]
    return found


def function_of(
    config: ModelConfig,
    params: Any,
    outputs: Function,
    compute: Compute = _COMPUTE,
) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """Returns `outputs(model, batch)` as a pure function of the parameters and the batch."""
    model = abstract_model(config, params, compute)
    graphdef, _ = nnx.split(model, nnx.Param)
    return lambda params, batch: outputs(nnx.merge(graphdef, params), batch)


def compiled(
    config: ModelConfig, params: Any, outputs: Function, inputs: tuple[str, ...] | None = None
) -> Program:
    """Returns the program of a model whose parameters are on a device; see `Program`."""
    function = jax.jit(function_of(config, params, outputs))
    return Program(lambda batch: jax.device_get(function(params, batch)), inputs)
