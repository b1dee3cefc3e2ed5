"""ONNX: a graph of standard operators, written directly.

Layers are unrolled, since onnxruntime fuses and prepares weights best without a loop; the weights
that they share are stored once all the same.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from flax import traverse_util

from albert_jax.config import ModelConfig
from albert_jax.export.onnx_graph import Graph
from albert_jax.model.encoder import is_stacked, layers_of_groups
from albert_jax.predict.exported import ONNX_FILE
from albert_jax.predict.program import TEXT, fills_masks
from albert_jax.tasks.question_answering import LOWEST

# Outputs by name: their values, and their axes, by name or size.
_Named = dict[str, tuple[str, Sequence[Any]]]
_MOST = 2**31 - 1  # bytes of a protocol buffer


def write_onnx(
    folder: Path,
    config: ModelConfig,
    params: Mapping[str, Any],
    kind: str,
    heads: Sequence[str],
    axes: Mapping[str, Sequence[str]],
    is_quantized: bool = False,
) -> dict[str, list[Any]]:
    """Writes `model.onnx`, its weights in float32, or the matrices in int8.

    With int8, a matrix product takes its inputs in 8 bits too, scaled for each product as it
    comes (onnxruntime's dynamic quantization).

    Args:
      folder: an existing folder.
      config: the model's sizes.
      params: its parameters, nested.
      kind: what it is for, a key of `model.heads.KINDS`.
      heads: what to compute besides the encoder, where it was not fine-tuned.
      axes: of each array of a batch.
      is_quantized: whether to write int8.

    Returns:
      The axes of each output, names or sizes.

    Raises:
      ValueError: if the file would be larger than ONNX allows.
    """
    model = _Network(config, params).model(kind, heads, axes)
    if model.ByteSize() > _MOST:
        raise ValueError(
            f"the model has {model.ByteSize():,} bytes, but an ONNX file at most {_MOST:,}; "
            "export it with --to stablehlo"
        )
    file = folder / ONNX_FILE
    onnx.save(model, file)
    if is_quantized:
        _quantize(file)
    return {
        output.name: [
            axis.dim_param or axis.dim_value for axis in output.type.tensor_type.shape.dim
        ]
        for output in model.graph.output
    }


def _quantize(file: Path) -> None:
    """Replaces a file with its int8 version."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # it asks for a pass that finds nothing in this graph
    try:
        # Signed weights, because CPUs multiply unsigned inputs by signed weights in one
        # instruction: twice as fast as unsigned ones here.
        quantize_dynamic(
            file,
            file,
            op_types_to_quantize=["MatMul", "Gather"],
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    finally:
        logging.disable(logging.NOTSET)


class _Network:
    """ALBERT as an ONNX graph, by the paths of its parameters.

    Values have the shapes that their names say, as in `model`.
    """

    def __init__(self, config: ModelConfig, params: Mapping[str, Any]):
        self.config, self.graph = config, Graph()
        self._params = {
            path: np.asarray(leaf, np.float32)
            for path, leaf in traverse_util.flatten_dict(dict(params), sep="/").items()
        }

    def model(
        self, kind: str, heads: Sequence[str], axes: Mapping[str, Sequence[str]]
    ) -> onnx.ModelProto:
        """Returns the whole model."""
        ids, types, mask = TEXT
        if kind == "multiple_choice":  # [B,C,T]: the rows of all options, then their scores
            shape_BCT = self.graph.op("Shape", ids)
            flat = self.graph.op("Concat", self.graph.ints(-1), self._size(ids, 2), axis=0)
            ids, types, mask = (self.graph.op("Reshape", name, flat) for name in TEXT)
            x_BTD = self.encoder(ids, types, mask)
            shape_BC = self.graph.op("Slice", shape_BCT, self.graph.ints(0), self.graph.ints(2))
            scores = self.graph.op(
                "Reshape", self._dense(self._pooled(x_BTD), "classifier"), shape_BC
            )
            outputs = {"logits": (scores, axes[TEXT[0]][:2])}
        else:
            outputs = self._outputs(kind, heads, self.encoder(ids, types, mask))
        return self.graph.model(axes, outputs)

    def _outputs(self, kind: str, heads: Sequence[str], x_BTD: str) -> _Named:
        op = self.graph.op
        if kind == "classification":
            classes = self._params["classifier/bias"].size
            return {"logits": (self._dense(self._pooled(x_BTD), "classifier"), ("B", classes))}
        if kind == "token_classification":
            log_probs = op("LogSoftmax", self._dense(x_BTD, "classifier"), axis=-1)
            classes = self._params["classifier/bias"].size
            return {"log_probs": (log_probs, ("B", "T", classes))}
        if kind == "question_answering":
            return {"logits": (self._span_logits(x_BTD), ("B", 2, "T"))}
        size = self.config.hidden_size
        found: _Named = {"last_hidden_state": (x_BTD, ("B", "T", size))}
        if "pooler" in heads:
            found["pooled_output"] = (self._pooled(x_BTD), ("B", size))
        if fills_masks(heads):
            found["mlm_logits"] = (self._mlm_logits(x_BTD), ("B", "P", self.config.vocab_size))
        if "sop" in heads:
            found["sop_logits"] = (self._dense(self._pooled(x_BTD), "sop"), ("B", 2))
        return found

    def encoder(self, ids_BT: str, types_BT: str, mask_BT: str) -> str:
        """Returns x_BTD for the names of int64 inputs [B,T]."""
        op, config = self.graph.op, self.config
        zero, one = (self._scalar(value) for value in (0, 1))
        length = op("Squeeze", self._size(ids_BT, 1))
        positions_T = op("Range", zero, length, one)
        x_BTE = op(
            "Add",
            op("Gather", self._weight("embeddings/token_embed/embedding"), ids_BT),
            op(
                "Add",
                op("Gather", self._weight("embeddings/position_embed/embedding"), positions_T),
                op("Gather", self._weight("embeddings/type_embed/embedding"), types_BT),
            ),
        )
        x_BTD = self._norm(x_BTE, "embeddings/norm")
        if config.has_projection:
            x_BTD = self._dense(x_BTD, "encoder/embed_proj")
        # 0 where a token is, and a large negative number on padding.
        padding_BT = op("Cast", op("Sub", one, mask_BT), to=onnx.TensorProto.FLOAT)
        lowest = self.graph.weight("lowest", np.array(np.finfo(np.float32).min))
        bias_B11T = op("Unsqueeze", op("Mul", padding_BT, lowest), self.graph.ints(1, 2))
        groups = layers_of_groups(config.num_hidden_layers, config.num_hidden_groups)
        for group, layers in enumerate(groups):
            for layer in range(layers):
                for inner in range(config.inner_group_num):
                    block = f"encoder/group_{group}/inner_group_{inner}"
                    x_BTD = self._attention(x_BTD, bias_B11T, f"{block}/attention", layer)
                    x_BTD = self._feed_forward(x_BTD, f"{block}/ffn", layer)
        return x_BTD

    def _attention(self, x_BTD: str, bias_B11T: str, path: str, layer: int) -> str:
        op, ints = self.graph.op, self.graph.ints
        size, heads = self.config.hidden_size, self.config.num_attention_heads
        qkv = self._queries_keys_values(x_BTD, path, layer)
        parts = self.graph.ops("Split", 3, qkv, ints(size, size, size), axis=-1)
        by_heads = [op("Reshape", part, ints(0, 0, heads, size // heads)) for part in parts]
        # Queries and values as [B,N,T,H], keys as [B,N,H,T].
        q, k, v = (
            op("Transpose", part, perm=perm)
            for part, perm in zip(
                by_heads, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True
            )
        )
        probs_BNTS = op("Softmax", op("Add", op("MatMul", q, k), bias_B11T), axis=-1)
        y_BTNH = op("Transpose", op("MatMul", probs_BNTS, v), perm=[0, 2, 1, 3])
        y_BTD = self._dense(op("Reshape", y_BTNH, ints(0, 0, size)), f"{path}/output", layer)
        return self._norm(op("Add", x_BTD, y_BTD), f"{path}/norm", layer)

    def _queries_keys_values(self, x_BTD: str, path: str, layer: int) -> str:
        """Returns all three, [B,T,3D], by one product."""
        # The scale of the scores is in the queries.
        scale = (self.config.hidden_size // self.config.num_attention_heads) ** -0.5
        scales = {"query": np.float32(scale), "key": np.float32(1), "value": np.float32(1)}

        def joined(part: str) -> str:
            arrays = [s * self._array(f"{path}/{p}/{part}", layer) for p, s in scales.items()]
            name = self._named(f"{path}/query_key_value/{part}", layer)
            return self.graph.weight(name, np.concatenate(arrays, axis=-1))

        product = self.graph.op("MatMul", x_BTD, joined("kernel"))
        return self.graph.op("Add", product, joined("bias"))

    def _feed_forward(self, x_BTD: str, path: str, layer: int) -> str:
        y_BTF = self._activation(self._dense(x_BTD, f"{path}/intermediate", layer))
        y_BTD = self._dense(y_BTF, f"{path}/output", layer)
        return self._norm(self.graph.op("Add", x_BTD, y_BTD), f"{path}/norm", layer)

    def _activation(self, x: str) -> str:
        op = self.graph.op
        return {
            "gelu_new": lambda: op("Gelu", x, approximate="tanh"),
            "gelu": lambda: op("Gelu", x),
            "relu": lambda: op("Relu", x),
            "silu": lambda: op("Mul", x, op("Sigmoid", x)),
            "tanh": lambda: op("Tanh", x),
        }[self.config.hidden_act]()

    def _pooled(self, x_BTD: str) -> str:
        cls_BD = self.graph.op("Gather", x_BTD, self._scalar(0), axis=1)
        return self.graph.op("Tanh", self._dense(cls_BD, "pooler"))

    def _mlm_logits(self, x_BTD: str) -> str:
        op = self.graph.op
        # The positions [B,P] as indices of whole vectors.
        index = op("Unsqueeze", "mlm_positions", self.graph.ints(2))
        x_BPD = op("GatherND", x_BTD, index, batch_dims=1)
        x_BPE = self._norm(self._activation(self._dense(x_BPD, "mlm/dense")), "mlm/norm")
        table_EV = op("Transpose", self._weight("embeddings/token_embed/embedding"), perm=[1, 0])
        return op("Add", op("MatMul", x_BPE, table_EV), self._weight("mlm/bias"))

    def _span_logits(self, x_BTD: str) -> str:
        """Returns logits [B,2,T], the lowest where neither [CLS] is nor an answer may begin."""
        op = self.graph.op
        logits_B2T = op("Transpose", self._dense(x_BTD, "span"), perm=[0, 2, 1])
        positions_T = op(
            "Range", self._scalar(0), op("Squeeze", self._size("begins", 1)), self._scalar(1)
        )
        is_cls_T = op("Equal", positions_T, self._scalar(0))
        may_BT = op("Or", op("GreaterOrEqual", "begins", self._scalar(0)), is_cls_T)
        lowest = self.graph.weight("not_allowed", np.array(LOWEST, np.float32))
        return op("Where", op("Unsqueeze", may_BT, self.graph.ints(1)), logits_B2T, lowest)

    def _dense(self, x: str, path: str, layer: int = 0) -> str:
        product = self.graph.op("MatMul", x, self._weight(f"{path}/kernel", layer))
        return self.graph.op("Add", product, self._weight(f"{path}/bias", layer))

    def _norm(self, x: str, path: str, layer: int = 0) -> str:
        scale, bias = (self._weight(f"{path}/{part}", layer) for part in ("scale", "bias"))
        return self.graph.op(
            "LayerNormalization", x, scale, bias, axis=-1, epsilon=self.config.layer_norm_eps
        )

    def _size(self, name: str, axis: int) -> str:
        """Returns the size of an axis, int64 [1]."""
        return self.graph.op("Shape", name, start=axis, end=axis + 1)

    def _scalar(self, value: int) -> str:
        return self.graph.weight(f"int/{value}", np.array(value, np.int64))

    def _weight(self, path: str, layer: int = 0) -> str:
        return self.graph.weight(self._named(path, layer), self._array(path, layer))

    def _array(self, path: str, layer: int) -> np.ndarray:
        leaf = self._params[path]
        return leaf[layer] if is_stacked(path, self.config.share) else leaf

    def _named(self, path: str, layer: int) -> str:
        """Returns the weight's name: its path, with the layer where each has its own."""
        return f"{path}/{layer}" if is_stacked(path, self.config.share) else path
