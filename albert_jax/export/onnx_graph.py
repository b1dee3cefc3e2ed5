"""A builder of ONNX graphs: nodes and weights, each weight stored once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20  # the first with Gelu
IR_VERSION = 10  # what onnxruntime has read since 1.18


class Graph:
    """Collects nodes in order. Values are known by their names.

    `op` adds a node and returns its output; `weight` adds an array under a name, or finds it.
    """

    def __init__(self):
        """Starts with nothing."""
        self._nodes: list[Any] = []
        self._weights: dict[str, Any] = {}

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output, and returns the output's name."""
        (output,) = self.ops(kind, 1, *inputs, **attributes)
        return output

    def ops(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node, and returns the names of its outputs."""
        names = [f"{kind}_{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def weight(self, name: str, array: np.ndarray) -> str:
        """Adds an array once, however often it is used, and returns its name."""
        if name not in self._weights:
            self._weights[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def ints(self, *values: int) -> str:
        """Returns a constant int64 vector."""
        return self.weight(f"ints/{values}", np.array(values, np.int64))

    def model(
        self, inputs: Mapping[str, Sequence[str]], outputs: Mapping[str, tuple[str, Sequence[Any]]]
    ) -> onnx.ModelProto:
        """Returns the model.

        Args:
          inputs: axes of each int64 input, by name.
          outputs: the value and the axes (names or sizes) of each float32 output, by name.
        """
        for name, (value, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name]))
        graph = helper.make_graph(
            self._nodes,
            "albert",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, list(axes))
                for name, axes in inputs.items()
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes))
                for name, (_, axes) in outputs.items()
            ],
            list(self._weights.values()),
        )
        opset = helper.make_opsetid("", OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="albert_jax"
        )
