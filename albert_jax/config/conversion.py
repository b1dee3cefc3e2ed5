"""Strict conversion of nested dicts to dataclasses of settings."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from albert_jax.config.choices import nearest, one_of


class Options(dict[str, Any]):
    """Named settings that only their consumer knows; hashable like all other settings."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(tuple(sorted(self.items())))


def names(*default: str) -> Any:
    """Returns the dataclass field of a setting that is a list of names."""
    return field(default=default, metadata={"element": str})


def convert(cls: type, values: Mapping[str, Any], where: str) -> Any:
    """Builds dataclass `cls` from `values`, checking only keys and types; for config files."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a group of settings, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    converted = {}
    for key, value in values.items():
        if key not in fields:
            raise ValueError(f"unknown key {where}.{key}{nearest(key, fields)}")
        default = fields[key].default
        if dataclasses.is_dataclass(default):
            converted[key] = convert(type(default), value, f"{where}.{key}")
        else:
            converted[key] = _convert_value(fields[key], value, f"{where}.{key}")
    return cls(**converted)


def element_type(spec: dataclasses.Field) -> type:
    """Returns the element type of a tuple setting."""
    return spec.metadata.get("element", int)


def _is_plain(value: Any) -> bool:
    """Whether a value may be an option."""
    is_finite = type(value) is not float or math.isfinite(value)
    return type(value) in (bool, int, float, str) and is_finite


def _convert_value(spec: dataclasses.Field, value: Any, where: str) -> Any:
    kind = type(spec.default)
    if kind is float and type(value) is int:
        value = float(value)
    if kind is tuple and isinstance(value, list | tuple):
        element = element_type(spec)
        if any(type(part) is not element for part in value):
            what = "names" if element is str else "whole numbers"
            raise ValueError(f"{where} must be {what}, not {value!r}")
        return tuple(value)
    if kind is Options and isinstance(value, Mapping):
        wrong = [name for name, part in value.items() if not _is_plain(part)]
        if wrong:
            raise ValueError(f"{where}.{wrong[0]} must be a finite number, a string or a bool")
        return Options(value)
    if type(value) is not kind:
        raise ValueError(
            f"{where} must be of type {kind.__name__}, not {type(value).__name__} {value!r}"
        )
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{where} must be finite, not {value}")
    choices = spec.metadata.get("choices")
    return one_of(where, value, choices) if choices else value
