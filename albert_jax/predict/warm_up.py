"""Compiles all shapes that a model may meet, so that no request waits for a compiler."""

import numpy as np
from tqdm import tqdm

from albert_jax.predict.embedding import BATCH
from albert_jax.predict.finetuned import FinetunedModel
from albert_jax.predict.pretrained import LEAST_MASKS
from albert_jax.predict.program import fills_masks, input_axes, is_task, prediction_widths
from albert_jax.tasks.batching import widths_for

_OPTIONS = 4  # of a multiple-choice question


def warm_up(model: FinetunedModel, max_rows: int) -> int:
    """Runs a model's programs on every shape of up to `max_rows` rows; returns their number.

    What is not covered is compiled when it is met: texts with more than four masks,
    multiple-choice questions without four options, and translations by another beam than the
    task's.
    """
    if is_task(model.kind):
        programs = [(model._program, prediction_widths(model.max_length), max_rows)]
    elif model.kind == "translation" and not model.is_export:
        programs = [(model.translator().program, widths_for(model.max_length), max_rows)]
    else:
        embedder = model._embedder
        programs = [(embedder.program, prediction_widths(embedder.max_length), max_rows)]
        if fills_masks(model.heads):  # one text at a time
            longest = model.config.max_position_embeddings
            programs.append((model._encoder, prediction_widths(longest), 1))
    shapes = [
        (program, rows, width)
        for program, widths, most in programs
        if not program.any_shape
        for rows in sorted({program.rows(count, BATCH) for count in range(1, most + 1)})
        for width in widths
    ]
    for program, rows, width in tqdm(
        shapes, "compiling", unit="shape", leave=False, disable=not shapes
    ):
        program(_dummy(model, rows, width))
    return len(shapes)


def _dummy(model: FinetunedModel, rows: int, width: int) -> dict[str, np.ndarray]:
    sizes = {"B": rows, "T": width, "C": _OPTIONS, "P": LEAST_MASKS}
    batch = {
        name: np.ones([sizes[axis] for axis in axes], np.int32)
        for name, axes in input_axes(model.kind, model.heads).items()
    }
    if model.kind == "translation":
        batch["attention_mask"][:, 2:] = 0  # a short source, so that its search ends soon
    return batch
