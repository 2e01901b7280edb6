"""Finds a room's plug-ins by file: every public module of a room that has a frozen ``Config``."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from gsth.errors import InputError


@cache
def names(room: str) -> tuple[str, ...]:
    """Names of the plug-ins of a room (or of a folder in one, ``track.detectors``), without importing them."""
    folder = Path(__file__).parent.joinpath(*room.split("."))
    own = {p.stem for p in folder.glob("*.py") if not p.stem.startswith("_") and "class Config" in p.read_text()}
    return tuple(sorted(own | {e.name for e in entry_points(group=f"gsth.{room}")}))


def plugin(room: str, name: str) -> Any:
    """The ``Config`` class of one plug-in; InputError lists the known names."""
    if name not in names(room):
        raise InputError(f"no {room} is called {name!r}; there are: {', '.join(names(room))}")
    for e in entry_points(group=f"gsth.{room}"):
        if e.name == name:
            return e.load()
    return importlib.import_module(f"gsth.{room}.{name}").Config
