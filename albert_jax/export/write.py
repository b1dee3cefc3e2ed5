"""Writes a model as a program, with its tokenizer, labels and settings beside it."""

import dataclasses
from functools import partial
from importlib import metadata
from pathlib import Path

from albert_jax.data.files import replace_json
from albert_jax.export.stablehlo import write_stablehlo
from albert_jax.predict.exported import RECORD
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.predict.program import encoder_outputs, input_axes, is_task

_PACKAGES = {"stablehlo": ("jax", "jaxlib"), "onnx": ("onnx", "onnxruntime")}


def write_export(model: FinetunedModel, folder: Path, to: str, is_quantized: bool = False) -> None:
    """Writes all files of an export into an empty folder.

    Of a translation model, only the encoder is exported.

    Args:
      model: not an export itself.
      folder: an existing folder.
      to: `stablehlo` or `onnx`.
      is_quantized: whether matrices become int8; only in ONNX.

    Raises:
      ValueError: if the model is an export, or too large, or what writes it is not installed.
    """
    if model.is_export:
        raise ValueError("the model is an export already; export what it was made from")
    heads = () if "decoder" in model.heads else model.heads
    axes = input_axes(model.kind, heads)
    if to == "stablehlo":
        outputs = (
            model.task.outputs if is_task(model.kind) else partial(encoder_outputs, heads=heads)
        )
        found = write_stablehlo(folder, model.config, model.params, outputs, axes)
    else:
        try:
            from albert_jax.export.onnx import write_onnx
        except ImportError:
            raise ValueError("--to onnx needs onnx: pip install 'albert_jax[onnx]'") from None
        found = write_onnx(
            folder, model.config, model.params, model.kind, heads, axes, is_quantized
        )
    task = None
    if model.is_finetuned:  # without the places of the data that it was trained on
        task = dataclasses.asdict(dataclasses.replace(model.task.config, data="", tokenizer=""))
    if model.has_tokenizer:
        model.tokenizer.vocabulary.write(folder)
    record = {
        "format": to,
        "kind": model.kind,
        "heads": list(heads),
        "labels": list(model.labels),
        "int8": is_quantized,
        "max_length": model.max_length,
        "inputs": {name: list(names) for name, names in axes.items()},
        "outputs": found,
        "model": dataclasses.asdict(model.config),
        "task": task,
        "validation": dict(model.validation),
        "versions": {name: metadata.version(name) for name in _PACKAGES[to]},
    }
    replace_json(folder / RECORD, record)  # last, so that a folder with it is complete
