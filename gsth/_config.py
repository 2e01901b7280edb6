"""Presets: ``configs/<verb>/<preset>.yaml`` holds values only; each becomes a subcommand of its verb."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from gsth.errors import InputError

T = TypeVar("T")


def folder() -> Path:
    """Where the presets lie: beside the package in a checkout, inside it in an installed wheel."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "configs"


def presets(cls: type[T], verb: str) -> dict[str, T]:
    """The presets of a verb as instances of its config class, by name.

    Raises:
        InputError: A file is not YAML, has a key that the config does not know, or a value of another type.
    """
    return {path.stem: read(cls, path) for path in sorted((folder() / verb).glob("*.yaml"))}


def read(cls: type[T], path: Path) -> T:
    """One preset: the defaults of ``cls``, changed where the file says so. Raises as ``presets``."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {error}") from error
    return filled(cls, values, str(path))


def filled(cls: Any, values: Any, where: str) -> Any:
    """An instance of the dataclass ``cls`` from plain values; ``where`` names the file and the keys so far."""
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: want the settings of {cls.__name__} as key: value, got {values!r}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    if unknown := [key for key in values if key not in known]:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; {cls.__name__} has {', '.join(known)}")
    made = {}
    for key, value in values.items():
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            made[key] = filled(hint, value, f"{where}: {key}")
        else:
            made[key] = _checked(hint, value, f"{where}: {key}")
    return cls(**made)


def _checked(hint: Any, value: Any, where: str) -> Any:
    """A plain value, of the type that its field declares (an int serves as float, a list as tuple)."""
    allowed = typing.get_args(hint) if typing.get_origin(hint) not in (tuple, dict, typing.Literal) else (hint,)
    for kind in allowed or (hint,):
        origin = typing.get_origin(kind) or kind
        if origin is typing.Literal and value in typing.get_args(kind):
            return value
        if origin is tuple and isinstance(value, list):
            return tuple(value)
        if origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if origin is Path and isinstance(value, str):
            return Path(value)
        if isinstance(origin, type) and isinstance(value, origin) and isinstance(value, bool) == (origin is bool):
            return value
    raise InputError(f"{where}: want {getattr(hint, '__name__', hint)}, got {value!r}")
