"""The combinations of settings that a search tries."""

import itertools
import random
from collections.abc import Mapping, Sequence

_LONGEST = 200  # bytes in the name of a folder; file systems allow 255
Settings = dict[str, str]  # key, such as optimizer.learning_rate, to value, as on a command line


def parse_settings(words: Sequence[str]) -> dict[str, list[str]]:
    """Returns the values of each setting in words like `optimizer.learning_rate=1e-5,3e-5`.

    A comma within brackets does not divide values.

    Raises:
      ValueError: if a word is not of that form, or a setting or value is given twice.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        key, is_set, values = word.partition("=")
        key = key.removeprefix("config.")
        if not is_set or not key or not values:
            raise ValueError(f"--try {word!r} must be KEY=VALUE,VALUE")
        if key in found:
            raise ValueError(f"--try {key} is given twice; put all its values into one")
        found[key] = _split(values)
        if len(set(found[key])) < len(found[key]) or "" in found[key]:
            raise ValueError(f"--try {word!r} has an empty value, or one twice")
    return found


def _split(values: str) -> list[str]:
    parts, depth = [""], 0
    for letter in values:
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def combinations(
    settings: Mapping[str, Sequence[str]], samples: int | None = None
) -> dict[str, Settings]:
    """Returns every combination by a name for its folder, or `samples` of them, drawn at random.

    The draw depends on the settings alone, so that a search goes on with the same ones.

    Raises:
      ValueError: if `samples` is less than 1, or names would be alike or too long.
    """
    if samples is not None and samples < 1:
        raise ValueError(f"--samples={samples} must be at least 1")
    every = [
        dict(zip(settings, values, strict=True))
        for values in itertools.product(*settings.values())
    ]
    if samples is not None and samples < len(every):
        chosen = set(random.Random(0).sample(range(len(every)), samples))
        every = [one for i, one in enumerate(every) if i in chosen]
    named = {name_of(one): one for one in every}
    if len(named) < len(every) or max(len(name.encode()) for name in named) > _LONGEST:
        raise ValueError(
            "--try: the folders of some combinations would have the same name, or too long a one; "
            "use shorter values, and no / in them"
        )
    return named


def name_of(settings: Mapping[str, str]) -> str:
    """Returns a name for a folder: short keys, unless two are alike."""
    ends = [key.rpartition(".")[2] for key in settings]
    keys = ends if len(set(ends)) == len(ends) else list(settings)
    named = [
        f"{key}={value.replace('/', '_')}"
        for key, value in zip(keys, settings.values(), strict=True)
    ]
    return " ".join(named) or "as it is"
