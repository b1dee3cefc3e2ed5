"""The files that make a transformers directory one of sentence-transformers.

Read are those of all its releases. Release 6 renamed modules and settings; written are the old
names, since it takes both and earlier releases only these.

Source: sentence-transformers 6.2, base/model.py, base/modules/transformer.py and normalize.py,
sentence_transformer/modules/pooling.py.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_jax.checkpoints.weights import Weights
from albert_jax.config import TaskConfig
from albert_jax.config.embedding import EmbeddingConfig
from albert_jax.data.files import parse_json, read_object
from albert_jax.data.tokenizers import Vocabulary

MODULES, _SETTINGS = "modules.json", "config_sentence_transformers.json"
# The second is from releases that named it after the model.
_ENCODERS = ("sentence_bert_config.json", "sentence_albert_config.json")
# As patterns of the Hub: the folders are numbered.
SENTENCE_FILES = (MODULES, _SETTINGS, *_ENCODERS, "*_Pooling/config.json",
                  "*_Normalize/config.json")  # fmt: skip
_PATHS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
_TYPE = "sentence_transformers."
_MODE = "pooling_mode"
# pooling -> the ending of the setting that turned it on before release 6.
_MODES = {"mean": "mean_tokens", "cls": "cls_token"}
_OTHER_MODES = ("max_tokens", "mean_sqrt_len_tokens")
# Settings of the encoder's and the normalization's files -> the values under which vectors are
# as ours.
_PLAIN = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "processing_kwargs": {},
    "processor_kwargs": {},
    "tokenizer_args": {},
    "config_kwargs": {},
    "config_args": {},
}
_PLAIN_NORMALIZE = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}
_ENCODER_ALONE = f"Remove {MODULES} to load the encoder alone"


def sentence_files(weights: Weights) -> dict[str, Any]:
    """Returns the content of each file: encode, pool, divide by the length.

    Training compares cosines, so vectors are written as normalized.
    """
    task = weights.task or TaskConfig()
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_TYPE}models.{name}"}
        for i, (name, path) in enumerate(_PATHS.items())
    ]
    pooling: dict[str, Any] = {"word_embedding_dimension": weights.config.hidden_size}
    pooling |= {f"{_MODE}_{end}": name == task.embedding.pooling for name, end in _MODES.items()}
    pooling |= {f"{_MODE}_{end}": False for end in _OTHER_MODES}
    longest = min(task.max_length, weights.config.max_position_embeddings)
    return {
        MODULES: modules,
        _SETTINGS: {
            "model_type": "SentenceTransformer",
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        # The tokenizer's files say what happens to case.
        _ENCODERS[0]: {"max_seq_length": longest, "do_lower_case": False},
        f"{_PATHS['Pooling']}/config.json": pooling,
        f"{_PATHS['Normalize']}/config.json": {},
    }


def read_sentence_task(
    directory: Path, positions: int, vocabulary: Vocabulary | None
) -> tuple[TaskConfig | None, list[Path]]:
    """Returns the settings with which a model embeds texts, and the files that say so.

    They are None and none if the directory is not one of sentence-transformers.

    Args:
      directory: a transformers directory.
      positions: of the model.
      vocabulary: its tokenizer's; None if there is none.

    Raises:
      FileNotFoundError: if the pooling is missing.
      ValueError: if a file is damaged, or vectors are made in another way.
    """
    path = directory / MODULES
    if not path.is_file():
        return None, []
    pooling, *norms = _folders(path)
    file = pooling / "config.json"
    task = TaskConfig(
        name="embedding/pairs",
        max_length=_length(directory, positions),
        embedding=EmbeddingConfig(pooling=_pooling(file)),
    )
    files = [path, file]
    for norm in (n / "config.json" for n in norms):
        if norm.is_file():
            _check_plain(norm, read_object(norm), _PLAIN_NORMALIZE)
            files.append(norm)
    if encoder := _encoder_file(directory):
        _check_encoder(encoder, vocabulary)
        files.append(encoder)
    if (settings := directory / _SETTINGS).is_file():
        _check_settings(settings, is_unit=bool(norms))
        files.append(settings)
    return task, files


def _folders(path: Path) -> list[Path]:
    """Returns the folders of the pooling and of the normalizations, from modules.json."""
    try:
        modules = [
            (str(module["type"]), str(module.get("path", "")))
            for module in parse_json(path.read_text("utf-8"), str(path))
        ]
    except (TypeError, KeyError, AttributeError):
        raise ValueError(f"{path}: not a list of modules; restore it from a copy") from None
    # A class of the same name from elsewhere may compute anything.
    names = [t.rpartition(".")[2] if t.startswith(_TYPE) else t for t, _ in modules]
    unknown = [name for name in names if name not in _PATHS]
    if unknown or names[:2] != ["Transformer", "Pooling"] or {*names[2:]} - {"Normalize"}:
        what = f"{', '.join(unknown)} of " if unknown else ""
        raise ValueError(
            f"{path}: {what}the modules {', '.join(names)} cannot be computed; supported are "
            f"{', '.join(_PATHS)} in this order. {_ENCODER_ALONE}"
        )
    folders = [folder for _, folder in modules]
    if folders[0] or any(Path(folder).name != folder for folder in folders[1:]):
        raise ValueError(
            f"{path}: the paths {folders} must be '' for the encoder and a folder of this "
            "directory for each other; save the model with a newer sentence-transformers"
        )
    return [path.parent / folder for folder in folders[1:]]


def _pooling(path: Path) -> str:
    values = read_object(path)
    found = values.get(_MODE)  # since release 6
    if found is None:
        ends = {f"{_MODE}_{end}": name for name, end in _MODES.items()}
        found = [ends.get(name, name.removeprefix(f"{_MODE}_")) for name, value in values.items()
                 if name.startswith(f"{_MODE}_") and value]  # fmt: skip
    on = [str(name) for name in (found if isinstance(found, list) else [found])]
    if len(on) != 1 or on[0] not in _MODES:
        raise ValueError(
            f"{path}: the pooling is {' and '.join(on) or 'missing'}; supported is one of "
            f"{', '.join(_MODES)}. {_ENCODER_ALONE}"
        )
    return on[0]


def _encoder_file(directory: Path) -> Path | None:
    return next((directory / n for n in _ENCODERS if (directory / n).is_file()), None)


def _length(directory: Path, positions: int) -> int:
    """Returns the longest text in tokens."""
    # Release 6 writes it only into the tokenizer's settings.
    places = (_encoder_file(directory), "max_seq_length"), (
        directory / "tokenizer_config.json", "model_max_length")  # fmt: skip
    for path, field in places:
        longest = read_object(path).get(field) if path and path.is_file() else None
        if longest is None:
            continue
        if type(longest) is float and longest.is_integer():  # 1e30 where there is no limit
            longest = int(longest)
        if type(longest) is not int or longest < 1:
            raise ValueError(f"{path}: {field}={longest!r} must be a whole number, at least 1")
        return min(longest, positions)
    return positions


def _check_plain(path: Path, values: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    for name, wanted in plain.items():
        if values.get(name, wanted) not in (wanted, None):
            raise ValueError(
                f"{path}: {name}={values[name]!r} is not supported, only {wanted!r}. "
                f"{_ENCODER_ALONE}"
            )


def _check_encoder(path: Path, vocabulary: Vocabulary | None) -> None:
    values = read_object(path)
    _check_plain(path, values, _PLAIN)
    if values.get("do_lower_case") and vocabulary and not vocabulary.rules.do_lower_case:
        raise ValueError(
            f"{path}: do_lower_case=true, but the tokenizer keeps capital letters; set it to "
            "false, and lower-case the texts before they are embedded"
        )


def _check_settings(path: Path, is_unit: bool) -> None:
    """Checks what is done to a text and to its vector outside of the modules."""
    values = read_object(path)
    _check_plain(path, values, {"model_type": "SentenceTransformer"})
    prompts = values.get("prompts") or {}
    if not isinstance(prompts, dict):
        raise ValueError(f"{path}: prompts={prompts!r} must be an object; restore it from a copy")
    prompts = {name: text for name, text in prompts.items() if text}
    default = str(values.get("default_prompt_name"))
    if default in prompts:
        raise ValueError(
            f"{path}: default_prompt_name={default!r} puts {prompts[default]!r} before each "
            "text; set it to null, and put that before the texts that are embedded"
        )
    if prompts:
        warnings.warn(
            f"{path}: the prompts {', '.join(prompts)} are left to you: put them before texts",
            stacklevel=4,
        )
    if (size := values.get("truncate_dim")) is not None:
        raise ValueError(
            f"{path}: truncate_dim={size!r} is not supported; set it to null, and take the first "
            f"{size} columns of the vectors"
        )
    # Of vectors of length 1, each similarity gives the same order as the cosine.
    similarity = values.get("similarity_fn_name")
    if similarity not in (None, "cosine") and not is_unit:
        warnings.warn(
            f"{path}: similarity_fn_name={similarity!r} needs embed(texts, normalize=False)",
            stacklevel=4,
        )
