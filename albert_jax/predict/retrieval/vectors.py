"""Search for what is meant, by the cosines of a model's vectors.

vectors.bin   the vector of each passage, float32 [P,D]
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from albert_jax.predict.embedding import normalized
from albert_jax.predict.finetuned import FinetunedModel

_FILE = "vectors.bin"
_CHUNK = 1024  # passages embedded together, those of like length in a batch
_SAME = 0.05  # cosine distance up to which vectors are of the same model, at any precision


class Vectors:
    """The vectors of passages, mapped into memory, and the model that made them.

    Attributes:
      floor: below the score of every passage.
    """

    floor = -math.inf

    def __init__(self, folder: Path, model: FinetunedModel, passages: int):
        """Opens what `write_vectors` wrote with this model for so many passages.

        Raises:
          ValueError: if it is damaged.
        """
        self._folder, self._model = folder, model
        self._vectors_PD = np.memmap(folder / _FILE, "<f4", "r").reshape(passages, -1)

    def check_model(self, first: str) -> None:
        """Checks that the model made the vectors, by that of the first passage.

        Raises:
          ValueError: if another model did.
        """
        vector_D = _embed(self._model, [first])[0][0]
        if vector_D.shape != self._vectors_PD.shape[1:] or (
            vector_D @ self._vectors_PD[0] < 1 - _SAME
        ):
            raise ValueError(
                f"{self._folder}: another model made these vectors; open it with that one, or "
                "build the index again"
            )

    def scores(self, question: str) -> np.ndarray:
        """Returns the cosine of each passage's vector with the question's, float32 [P]."""
        return self._vectors_PD @ _embed(self._model, [question])[0][0]


def write_vectors(folder: Path, texts: Iterator[str], model: FinetunedModel) -> int:
    """Writes the vectors of passages; returns how many passages were cut.

    Args:
      folder: where to write.
      texts: the passages.
      model: gives the vectors.
    """
    cut = 0
    with (
        (folder / _FILE).open("wb") as file,
        tqdm(desc="embedding", unit=" passages", leave=False) as bar,
    ):
        while chunk := list(itertools.islice(texts, _CHUNK)):
            vectors_BD, more = _embed(model, chunk)
            file.write(vectors_BD.astype("<f4").tobytes())
            cut += more
            bar.update(len(chunk))
    return cut


def _embed(model: FinetunedModel, texts: list[str]) -> tuple[np.ndarray, int]:
    """Returns vectors of length 1 [B,D] of texts, and how many texts were cut."""
    vectors_BD, cut = model._embedder(texts, model.tokenizer, None)
    return normalized(vectors_BD), cut
