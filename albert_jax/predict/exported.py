"""Reads exports: directories that `albert_jax.export` writes."""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import jax
import numpy as np
from flax import traverse_util
from jax import export

from albert_jax.checkpoints.weights import Weights
from albert_jax.config import config_from_dict
from albert_jax.config.choices import one_of
from albert_jax.data.files import read_object
from albert_jax.data.tokenizers import read_vocabulary, vocabulary_in
from albert_jax.model.heads import KINDS
from albert_jax.predict.program import Batch, Outputs, Program, input_axes, is_task

RECORD = "export.json"
STABLEHLO_FILE, PARAMS_FILE, ONNX_FILE = "model.stablehlo", "params.npz", "model.onnx"
FORMATS = ("stablehlo", "onnx")
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_FIELDS = ("format", "kind", "heads", "labels", "model", "task", "validation")


class Export(NamedTuple):
    """What an export holds.

    Attributes:
      weights: all that is known of the model; parameters only from StableHLO.
      heads: what the program computes besides the encoder.
      encoder: gives the outputs of `encoder_outputs`; of a fine-tuned model, it only raises.
      task: gives the outputs of the task; of another model, it only raises.
    """

    weights: Weights
    heads: tuple[str, ...]
    encoder: Program
    task: Program


def is_export(folder: Path) -> bool:
    """Returns whether a directory holds an export."""
    return (folder / RECORD).is_file()


def read_export(folder: Path) -> Export:
    """Reads an export.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if a file is damaged, or what runs it is not installed.
    """
    path = folder / RECORD
    record = read_object(path)
    if missing := [name for name in _FIELDS if name not in record]:
        raise ValueError(f"{path}: missing {', '.join(missing)}; export the model again")
    one_of(f"{path}: format", record["format"], FORMATS)
    kind = one_of(f"{path}: kind", record["kind"], KINDS)
    groups = {name: record[name] for name in ("model", "task") if record[name]}
    positions = record["model"].get("max_position_embeddings")
    config = config_from_dict({**groups, "data": {"seq_len": positions}})
    heads = tuple(record["heads"])
    is_onnx = record["format"] == "onnx"
    params, run = ({}, _onnx(folder / ONNX_FILE)) if is_onnx else _stablehlo(folder)
    weights = Weights(
        config=config.model,
        params=params,
        kind=kind,
        vocabulary=read_vocabulary(folder) if vocabulary_in(folder) else None,
        labels=tuple(record["labels"]),
        task=config.task if config.task.name != "pretrain" else None,
        validation=record["validation"],
    )
    program = Program(run, tuple(input_axes(kind, heads)), any_shape=is_onnx)

    def refuse(batch: Batch) -> Outputs:
        raise ValueError(
            f"{folder} holds only the {'task' if is_task(kind) else 'encoder'} of its model, for "
            f"{kind}; load what it was exported from"
        )

    other = Program(refuse)
    return Export(weights, heads, *((other, program) if is_task(kind) else (program, other)))


def _stablehlo(folder: Path) -> tuple[dict[str, Any], Callable[[Batch], Outputs]]:
    """Returns the parameters, and the function compiled for each shape when it is first met."""
    for name in (STABLEHLO_FILE, PARAMS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: no such file; export the model again")
    try:
        with (folder / PARAMS_FILE).open("rb") as opened, np.load(opened) as arrays:
            flat = dict(arrays)
        program = export.deserialize(bytearray((folder / STABLEHLO_FILE).read_bytes()))
    except (ValueError, EOFError, BadZipFile, KeyError, struct.error) as error:
        raise ValueError(f"{folder}: cannot be read ({error}); export the model again") from None
    on_device, function = jax.device_put(flat, jax.local_devices()[0]), jax.jit(program.call)

    def run(batch: Batch) -> Outputs:
        return jax.device_get(function(on_device, batch))

    return traverse_util.unflatten_dict(flat, sep="/"), run


def _onnx(file: Path) -> Callable[[Batch], Outputs]:
    """Returns the function in an ONNX file, run on a GPU or the cores that this process has."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; export the model again")
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"{file} needs onnxruntime: pip install 'albert_jax[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    available = onnxruntime.get_available_providers()
    try:
        session = onnxruntime.InferenceSession(
            file, options, [name for name in _PROVIDERS if name in available]
        )
    except Exception as error:  # the errors of onnxruntime have no other base
        raise ValueError(f"{file}: cannot be read ({error}); export the model again") from None
    names = [output.name for output in session.get_outputs()]

    def run(batch: Batch) -> Outputs:
        found = session.run(names, {k: v.astype(np.int64) for k, v in batch.items()})
        return dict(zip(names, map(np.asarray, found), strict=True))

    return run
