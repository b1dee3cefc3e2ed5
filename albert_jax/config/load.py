"""Config files and command line overrides.

A config file is a Python module whose `get_config()` returns a modified `default_config()`, an
`ml_collections.ConfigDict`. An override is `--config.GROUP.KEY=VALUE`. The files in configs/ can
also be given by name: `tiny`, `finetune/sst2`.
"""

import dataclasses
import os
import runpy
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import ml_collections

from albert_jax.config.choices import nearest
from albert_jax.config.conversion import Options, convert, element_type
from albert_jax.config.schema import TFDS_PREFIX, Config, config_from_dict


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Runs a config file and applies overrides.

    Args:
      path: a name that `find_config` accepts, or `file.py:argument`; the argument is passed to
        `get_config`.
      overrides: command line words `--config.a.b=value` or `--config.a.b value`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file fails or has no `get_config`, or a key, type or value is wrong.
    """
    file, _, argument = path.partition(":")
    file = find_config(file)
    get_config = run_file(file).get("get_config")
    if not callable(get_config):
        raise ValueError(f"config file {file!r} defines no get_config()")
    with _named_errors(file):
        found: Any = get_config(argument) if argument else get_config()
    if not isinstance(found, Mapping | ml_collections.ConfigDict):
        raise ValueError(
            f"config file {file!r}: get_config() must return a ConfigDict, not "
            f"{type(found).__name__}"
        )
    values = found.to_dict() if isinstance(found, ml_collections.ConfigDict) else dict(found)
    convert(Config, values, "config")  # checks the keys before overrides are applied to them
    for key, text in _parse_overrides(overrides).items():
        _override(values, key, text)
    config = with_paths(config_from_dict(values), os.path.expanduser)
    return dataclasses.replace(config, init_from=os.path.expanduser(config.init_from))


def with_paths(config: Config, change: Callable[[str], str]) -> Config:
    """Returns the settings with every path of data changed."""

    def changed(path: str) -> str:
        return change(path) if path and not path.startswith(TFDS_PREFIX) else path

    task = dataclasses.replace(
        config.task, data=changed(config.task.data), tokenizer=changed(config.task.tokenizer)
    )
    data = dataclasses.replace(config.data, path=changed(config.data.path))
    return dataclasses.replace(config, data=data, task=task)


def user_path(text: str) -> Path:
    """Returns the path that a user named; `~` is the home directory."""
    return Path(text).expanduser()


def find_config(name: str) -> str:
    """Returns a config file's path, given the path or the name of one in configs/ without `.py`.

    Raises:
      FileNotFoundError: if there is no such file.
    """
    name = os.path.expanduser(name)
    if name.endswith(".py") and os.path.isfile(name):
        return name
    package = Path(str(resources.files("albert_jax")))
    folder = package / "configs"  # in a wheel
    if not folder.is_dir():
        folder = package.parent / "configs"  # in a checkout
    files = {f.relative_to(folder).with_suffix("").as_posix(): f for f in folder.rglob("*.py")}
    if name not in files:
        known = name.removesuffix(".py").removeprefix("configs/")
        hint = nearest(name, sorted(files))
        if known in files:
            hint = f" here; {known!r} without .py is the installed one"
        raise FileNotFoundError(f"config file {name!r} does not exist{hint}")
    return str(files[name])


def run_file(path: str) -> dict[str, Any]:
    """Runs a file, located by `find_config`, and returns the names it defines.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it fails; the message names the line.
    """
    path = find_config(path)
    with _named_errors(path):
        return runpy.run_path(path)


@contextmanager
def _named_errors(file: str) -> Generator[None]:
    """Turns any error in a user's file into a ValueError that names the line."""
    try:
        yield
    except Exception as error:  # the file may raise anything
        line = error.lineno if isinstance(error, SyntaxError) else _line_in(file, error)
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        place = f"{file}:{line}" if line else file
        raise ValueError(f"config file {place}: {type(error).__name__}: {reason}") from error


def _line_in(file: str, error: Exception) -> int | None:
    """Returns the last line of the file in the error's traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if os.path.abspath(f.filename) == os.path.abspath(file)]
    return lines[-1] if lines else None


def _parse_overrides(words: Sequence[str]) -> dict[str, str]:
    """Parses `--config.a.b=1` and `--config.a.b 1` to {"a.b": "1"}."""
    overrides, words = {}, list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--config."):
            raise ValueError(
                f"unknown argument {word!r}; write settings as --config.GROUP.KEY=VALUE"
            )
        key, equals, text = word.removeprefix("--config.").partition("=")
        if not equals:
            if not words or words[0].startswith("--config."):
                raise ValueError(f"{word} has no value; write {word}=VALUE")
            text = words.pop(0)
        overrides[key] = text
    return overrides


def _override(values: dict[str, Any], key: str, text: str) -> None:
    """Sets `values[a][b]` for key "a.b" from text, converted to the type of the default."""
    *groups, name = key.split(".")
    where = "config"
    cls: Any = Config
    for i, group in enumerate(groups):
        default = getattr(cls(), group, None)
        if isinstance(default, Options):
            if i + 1 < len(groups):
                raise ValueError(f"unknown key config.{key}; options are {where}.{group}.NAME")
            values.setdefault(group, {})[name] = _parse_option(text)
            return
        if not dataclasses.is_dataclass(default):
            known = [f.name for f in dataclasses.fields(cls)]
            raise ValueError(f"unknown key {where}.{group}{nearest(group, known)}")
        where, cls, values = f"{where}.{group}", type(default), values.setdefault(group, {})
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if name not in fields:
        raise ValueError(f"unknown key {where}.{name}{nearest(name, fields)}")
    values[name] = _parse_text(text, fields[name], f"{where}.{name}")


def _parse_option(text: str) -> bool | int | float | str:
    """Returns a number, or true or false, as its own type; anything else as a string."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def _parse_text(text: str, spec: dataclasses.Field, where: str) -> Any:
    kind = type(spec.default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind in (int, float):
            return kind(text)
        if kind is tuple:
            element = element_type(spec)
            return tuple(element(word) for word in text.strip("[]()").replace(",", " ").split())
    except (KeyError, ValueError):
        names = {bool: "true or false", tuple: "whole numbers, such as [0,1,2]"}
        name = names.get(kind, kind.__name__)
        raise ValueError(f"{where} must be {name}, not {text!r}") from None
    if kind is str:
        return text
    raise ValueError(f"{where} is a group of settings; set its keys with {where}.KEY=VALUE")
