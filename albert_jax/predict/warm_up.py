"""Compiles all shapes that a model may meet, so that no request waits for a compiler."""

import numpy as np
from tqdm import tqdm

from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.predict.pretrained import LEAST_MASKS
from albert_jax.predict.program import fills_masks, input_axes, is_task, prediction_widths

_OPTIONS = 4  # of a multiple-choice question


def warm_up(model: FinetunedModel, max_rows: int) -> int:
    """Runs a model's program on every shape of up to `max_rows` rows, and returns their number.

    What is not covered is compiled when it is met: texts with more than four masks,
    multiple-choice questions without four options, and the search for translations.
    """
    program = model._program if is_task(model.kind) else model._encoder
    if program.any_shape or model.kind == "translation":
        return 0
    longest = model.config.max_position_embeddings
    if is_task(model.kind):
        longest = model.task.config.max_length
    if fills_masks(model.heads):  # one text at a time
        max_rows = 1
    sizes = sorted({program.rows(count, max_rows) for count in range(1, max_rows + 1)})
    shapes = [(rows, width) for rows in sizes for width in prediction_widths(longest)]
    for rows, width in tqdm(shapes, "compiling", unit="shape", leave=False):
        program(_dummy(model, rows, width))
    return len(shapes)


def _dummy(model: FinetunedModel, rows: int, width: int) -> dict[str, np.ndarray]:
    sizes = {"B": rows, "T": width, "C": _OPTIONS, "P": LEAST_MASKS}
    return {
        name: np.ones([sizes[axis] for axis in axes], np.int32)
        for name, axes in input_axes(model.kind, model.heads).items()
    }
