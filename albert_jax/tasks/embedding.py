"""Embeddings: one vector for each text, close for texts that belong together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.config import TaskConfig
from albert_jax.data.tokenizers import Tokenizer
from albert_jax.tasks.base import (
    Batch,
    Mean,
    Metrics,
    flat,
    row_work,
    rows_of_parts,
    squared_error,
)
from albert_jax.tasks.examples import TextExample
from albert_jax.tasks.features import Features, join, stack
from albert_jax.tasks.finetuning import FinetuningTask, Outputs, TaskSpec
from albert_jax.tasks.metrics import text_metrics
from albert_jax.tasks.submissions import write_text_predictions

POOLINGS = ("mean", "cls")
OF_SCORES = ("spearman", "pearson")  # of the cosines with the scores
OF_PAIRS = ("recall_at_1",)
# Axes of the mesh that rows are split along.
_ROWS = ("data", "fsdp")
# The least length of a vector that is divided by it. Source: torch.nn.functional.normalize.
_SHORTEST = 1e-12
_CHUNK = 1024  # texts that are compared with all others at once


def pooled(x_BTD: Any, mask_BT: Any, pooling: str) -> Any:
    """Returns float32 vectors x_BD of texts, from NumPy arrays or from those of JAX.

    Args:
      x_BTD: the encoder's output.
      mask_BT: 0 on padding; special tokens count like others.
      pooling: one of `POOLINGS`.
    """
    x_BTD = x_BTD.astype(np.float32)
    if pooling == "cls":
        return x_BTD[:, 0]
    mask_BT1 = mask_BT.astype(np.float32)[..., None]
    return (x_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)


class Embedding(FinetuningTask):
    """An encoder without a head, trained on pairs of texts. Its two objectives follow the data.

    Pairs with a score: the squared error between the cosine and the score, from 0 to 1.
    Source: arXiv:1908.10084, section 3.

    Pairs without a score: each text is to find its pair among those of all rows of the batch,
    and the pair its text. The loss is the cross entropy over the cosines, divided by the
    temperature. Source: arXiv:1705.00652, section 4.4. The rows are those of all devices; under
    gradient accumulation they are those of one part, so there more parts make an easier task.
    Rows with the same text, or the same pair, are not held against each other.
    """

    kind = "embedding"

    def __init__(self, spec: TaskSpec, config: TaskConfig, labels: Sequence[str] = ()):
        """Keeps the settings.

        Raises:
          ValueError: if there would be nothing to train.
        """
        super().__init__(spec, config, labels)
        if config.freeze_encoder:
            raise ValueError(
                "config.task.freeze_encoder=True leaves nothing to train: there is no head; leave "
                "it out"
            )

    def reported(self, examples: Sequence[TextExample]) -> tuple[str, ...]:
        """Returns the names of the metrics of examples with scores, or without."""
        return OF_SCORES if self.has_labels(examples) else OF_PAIRS

    def features(self, examples: Sequence[TextExample], tokenizer: Tokenizer) -> Features:
        """Returns a row for each pair, with a part for either text."""
        return pair_features(examples, tokenizer, self.config.max_length)

    def logits(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Returns float32 cosines over the temperature [B,2,N] with the N rows of all devices.

        Those of the row's text with all pairs come first, those of its pair with all texts
        second. They are -inf for rows that only fill up the batch, and for others that share a
        text with the row.
        """
        x_B2D = self._vectors(model, batch, dropout_keys_B)
        ids_B2, weights_B = batch["text_ids"], batch["weights"]
        x_N2D, ids_N2, weights_N = map(_of_all_devices, (x_B2D, ids_B2, weights_B))
        cosines_B2N = jnp.einsum(
            "BPD,NPD->BPN", x_B2D, x_N2D[:, ::-1], precision=jax.lax.Precision.HIGHEST
        )
        own_BN = self._own(batch)[:, None] == jnp.arange(len(weights_N))[None]
        is_same_BN = jnp.any(ids_B2[:, None] == ids_N2[None], axis=-1)
        counts_BN = own_BN | ((weights_N > 0)[None] & ~is_same_BN)
        return jnp.where(
            counts_BN[:, None], cosines_B2N / self.config.embedding.temperature, -jnp.inf
        )

    def targets(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns scores, float32 [B,1], or without them row numbers, int32 [B,2]; and weights."""
        weights_B1 = batch["weights"][:, None]
        if "label" in batch:
            return batch["label"][:, None], weights_B1
        return jnp.tile(self._own(batch)[:, None], (1, 2)), jnp.tile(weights_B1, (1, 2))

    def metrics(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> Metrics:
        """Returns sums of the loss, and without scores of the texts that find their other."""
        if "label" not in batch:
            return super().metrics(model, batch, dropout_keys_B)
        cosines_B = _cosines(self._vectors(model, batch, dropout_keys_B))
        loss = squared_error(cosines_B, batch["label"], batch["weights"])
        return self.work(batch) | {"task_loss": Mean(loss, jnp.sum(batch["weights"]))}

    def work(self, batch: Batch) -> Metrics:
        """Returns the work in the rows of both texts, without padding."""
        return row_work(flat(batch["attention_mask"] * batch["weights"][:, None, None]))

    def outputs(self, model: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns float32 vectors [B,2,D] of length 1."""
        return {"vectors": self._vectors(model, batch, None)}

    def predictions(self, outputs: Outputs, features: Features, count: int) -> list[float]:
        """Returns the cosine of each pair."""
        del features, count  # one row per pair, in order
        return [float(_cosines(output["vectors"])) for output in outputs]

    def score(
        self,
        outputs: Outputs,
        features: Features,
        examples: Sequence[TextExample],
        validation: Mapping[str, float] | None = None,
    ) -> dict[str, float]:
        """Returns correlations with the scores; without scores, how many texts find their pair.

        `recall_at_1` is the fraction of the texts whose nearest pair, among those of all
        examples, is their own or an equal one.
        """
        del validation  # nothing is tuned
        if self.has_labels(examples):
            found = np.array(self.predictions(outputs, features, len(examples)))
            return text_metrics(OF_SCORES, found, np.array([e.label for e in examples]))
        x_N2D = np.stack([output["vectors"] for output in outputs])
        return {
            "recall_at_1": recall_at_1(x_N2D, np.stack([r["text_ids"] for r in features.rows]))
        }

    def write(
        self,
        output: Path,
        split: str,
        examples: Sequence[TextExample],
        outputs: Outputs,
        features: Features,
        validation: Mapping[str, float],
    ) -> None:
        """Writes a table with the cosine of each pair."""
        del validation
        found = np.array(self.predictions(outputs, features, len(examples)))
        ids, columns = [e.id for e in examples], [e.columns for e in examples]
        write_text_predictions(self.spec.files, output, split, ids, found, others=columns)

    def _vectors(self, model: Any, batch: Batch, dropout_keys_B: jax.Array | None) -> jax.Array:
        """Returns float32 vectors x_B2D of length 1."""
        rows, dropout_keys_R = rows_of_parts(batch, dropout_keys_B)
        x_RTD = model.encode(rows, dropout_keys_R)
        x_RD = pooled(x_RTD, rows["attention_mask"], self.config.embedding.pooling)
        x_B2D = x_RD.reshape(-1, 2, x_RD.shape[-1])
        # The root's gradient at 0 is infinite, so the limit is inside.
        square_B21 = jnp.sum(jnp.square(x_B2D), axis=-1, keepdims=True)
        return x_B2D * jax.lax.rsqrt(jnp.maximum(square_B21, _SHORTEST**2))

    def _own(self, batch: Batch) -> jax.Array:
        """Returns the number of each row among those of all devices, int32 [B]."""
        numbers_B = jnp.arange(len(batch["weights"]))
        if not _is_split():
            return numbers_B
        return numbers_B + jax.lax.axis_index(_ROWS) * len(numbers_B)


def pair_features(
    examples: Sequence[TextExample], tokenizer: Tokenizer, max_length: int
) -> Features:
    """Returns a row [2, tokens] for each pair, `[CLS] text [SEP]` for either text.

    `text_ids` [2] are the same for the same texts; `label` is the score (float32), if any.

    Raises:
      ValueError: if an example has only one text.
    """
    if alone := [e.id for e in examples if e.pair is None]:
        raise ValueError(f"example {alone[0]} has no second text; give it one, as `pair`")
    texts = tokenizer.encode_batch([e.text for e in examples])
    pairs = tokenizer.encode_batch([e.pair or "" for e in examples])
    numbers: dict[tuple[int, ...], int] = {}
    rows, cut = [], 0
    for example, both in zip(examples, zip(texts, pairs, strict=True), strict=True):
        parts = []
        for ids in both:
            part, is_cut = join(tokenizer.special, ids, [], max_length)
            parts.append(part)
            cut += is_cut
        row = {name: stack([part[name] for part in parts], name) for name in parts[0]}
        same = [numbers.setdefault(tuple(ids), len(numbers)) for ids in both]
        row["text_ids"] = np.array(same, np.int32)
        if example.label is not None:
            row["label"] = np.array(example.label, np.float32)
        rows.append(row)
    return Features(rows, np.arange(len(rows)), {"texts cut": cut})


def recall_at_1(x_N2D: np.ndarray, text_ids_N2: np.ndarray) -> float:
    """Returns the fraction of first texts whose nearest second text is their own.

    Args:
      x_N2D: vectors of length 1 of both texts.
      text_ids_N2: the same number for the same texts; one that equals the own is right too.
    """
    right = 0
    for begin in range(0, len(x_N2D), _CHUNK):
        texts_CD = x_N2D[begin : begin + _CHUNK, 0]
        nearest_C = np.argmax(texts_CD @ x_N2D[:, 1].T, axis=-1)
        own_C = text_ids_N2[begin : begin + _CHUNK, 1]
        right += int(np.sum(text_ids_N2[nearest_C, 1] == own_C))
    return right / len(x_N2D)


def _cosines(x_B2D: Any) -> Any:
    """Returns the products of both vectors, which have length 1."""
    return (x_B2D[..., 0, :] * x_B2D[..., 1, :]).sum(-1)


def _is_split() -> bool:
    """Whether this device's program sees only its own rows, as in `train.step`."""
    return set(_ROWS) <= set(jax.sharding.get_abstract_mesh().manual_axes)


def _of_all_devices(x_B: jax.Array) -> jax.Array:
    """Returns the rows of all devices; gradients go back to where they are from."""
    return jax.lax.all_gather(x_B, _ROWS, tiled=True) if _is_split() else x_B
