"""The files that make a transformers directory one of sentence-transformers.

Source: sentence-transformers, models/Transformer.py, Pooling.py and Normalize.py.
"""

from pathlib import Path
from typing import Any

from albert_jax.checkpoints.weights import Weights
from albert_jax.config import TaskConfig
from albert_jax.config.embedding import EmbeddingConfig
from albert_jax.data.files import parse_json, read_object

MODULES, LENGTHS = "modules.json", "sentence_bert_config.json"
POOLING = "1_Pooling/config.json"
SENTENCE_FILES = (MODULES, LENGTHS, POOLING)
_NORMALIZE = "2_Normalize/config.json"
_PATHS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
_TYPE = "sentence_transformers.models."
_MODE = "pooling_mode_"
# pooling -> the ending of the setting that turns it on.
_MODES = {"mean": "mean_tokens", "cls": "cls_token"}
_OTHER_MODES = ("max_tokens", "mean_sqrt_len_tokens")


def sentence_files(weights: Weights) -> dict[str, Any]:
    """Returns the content of each file: encode, pool, divide by the length.

    Training compares cosines, so vectors are written as normalized.
    """
    task = weights.task or TaskConfig()
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": _TYPE + name}
        for i, (name, path) in enumerate(_PATHS.items())
    ]
    modes = {f"{_MODE}{end}": name == task.embedding.pooling for name, end in _MODES.items()}
    pooling = {"word_embedding_dimension": weights.config.hidden_size} | modes
    pooling |= {f"{_MODE}{end}": False for end in _OTHER_MODES}
    longest = min(task.max_length, weights.config.max_position_embeddings)
    return {
        MODULES: modules,
        # The tokenizer's files say what happens to case.
        LENGTHS: {"max_seq_length": longest, "do_lower_case": False},
        POOLING: pooling,
        _NORMALIZE: {},
    }


def read_sentence_task(directory: Path, positions: int) -> tuple[TaskConfig | None, list[Path]]:
    """Returns the settings with which a model embeds texts, and the files that say so.

    They are None and none if the directory is not one of sentence-transformers.

    Args:
      directory: a transformers directory.
      positions: of the model.

    Raises:
      FileNotFoundError: if the pooling is missing.
      ValueError: if a file is damaged, or vectors are made in another way.
    """
    path, lengths, pooling = (directory / name for name in SENTENCE_FILES)
    if not path.is_file():
        return None, []
    modules = parse_json(path.read_text("utf-8"), str(path))
    try:
        types = [str(module["type"]).rpartition(".")[2] for module in modules]
    except (TypeError, KeyError):
        raise ValueError(f"{path}: not a list of modules; restore it from a copy") from None
    unknown = [name for name in types if name not in _PATHS]
    if unknown or types[:2] != ["Transformer", "Pooling"]:
        raise ValueError(
            f"{path}: modules are {', '.join(types)}; supported are {', '.join(_PATHS)}. Remove "
            "the file to load the encoder alone"
        )
    task = TaskConfig(
        name="embedding/pairs",
        max_length=_length(lengths, positions),
        embedding=EmbeddingConfig(pooling=_pooling(pooling)),
    )
    return task, [path, pooling, *([lengths] if lengths.is_file() else [])]


def _pooling(path: Path) -> str:
    on = [name.removeprefix(_MODE) for name, value in read_object(path).items()
          if name.startswith(_MODE) and value]  # fmt: skip
    found = [pooling for pooling, end in _MODES.items() if [end] == on]
    if not found:
        raise ValueError(
            f"{path}: the pooling is {' and '.join(on) or 'missing'}; supported is one of "
            f"{', '.join(_MODES.values())}"
        )
    return found[0]


def _length(path: Path, positions: int) -> int:
    """Returns the longest text in tokens."""
    longest = read_object(path).get("max_seq_length") if path.is_file() else None
    if longest is None:
        return positions
    if type(longest) is not int or longest < 1:
        raise ValueError(f"{path}: max_seq_length={longest!r} must be a whole number, at least 1")
    return min(longest, positions)
