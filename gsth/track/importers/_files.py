"""Reading what importers have in common; every complaint names the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gsth.errors import InputError


def wanted(paths: Iterable[Path], what: str) -> None:
    """Raises InputError that names the first missing file and how many more there are."""
    missing = [p for p in paths if not _is_file(p)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: is missing{more}; {what}")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object."""
    wanted([path], what)
    try:
        value = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON ({error}); copy it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, wanted an object with frames")
    return value


def peek(path: Path) -> dict[str, Any]:
    """The first frame of a transforms file with the file's own keys beside; empty where it cannot be read."""
    try:
        whole = json.loads(path.read_text())
        return {**whole, **whole["frames"][0]}
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        return {}


def key(mapping: Any, name: str, where: Path) -> Any:
    """A value that must be there."""
    if not isinstance(mapping, Mapping):
        raise InputError(f"{where}: holds a {type(mapping).__name__} in the place of an object with {name!r}")
    if name not in mapping:
        raise InputError(f"{where}: has no {name!r}; it has {', '.join(map(str, mapping)) or 'nothing'}")
    return mapping[name]


def objects(value: Any, where: Path) -> list[dict[str, Any]]:
    """A list of objects."""
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InputError(f"{where}: its frames are no list of objects; copy it again")
    return value


def beside(folder: Path, name: Any) -> Path:
    """The path of a file that a layout names; such paths may lead out of the folder, to pictures that are shared."""
    if not isinstance(name, str) or not name:
        raise InputError(f"{folder}: names a file by {name!r:.40}, wanted a path")
    return folder / name


def number(value: Any, where: str) -> float:
    """A finite number."""
    try:
        out = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: is no number ({error})") from error
    if not math.isfinite(out):
        raise InputError(f"{where}: is {out}, wanted a finite number")
    return out


def array(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Finite numbers of a shape, -1 for any length; float64."""
    try:
        out = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"{where}: is not numbers ({error})") from error
    if out.ndim != len(shape) or any(n not in (-1, m) for n, m in zip(shape, out.shape, strict=True)):
        raise InputError(f"{where}: is {list(out.shape)}, wanted {list(shape)} (-1: any)")
    if not np.isfinite(out).all():
        raise InputError(f"{where}: holds values that are not finite")
    return out


def unchanged(path: Path) -> np.ndarray:
    """A picture as the file holds it: BGR or BGRA [h w c], or [h w]."""
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise InputError(f"{path}: is missing or not a picture")
    return raw


def picture(path: Path) -> np.ndarray:
    """A colour picture, uint8 [h w 3]; where it is transparent, white shows."""
    raw = unchanged(path)
    if raw.dtype != np.uint8:
        raise InputError(f"{path}: has {raw.dtype} pixels, wanted 8 bits for each channel")
    if raw.ndim == 2:
        return cv2.cvtColor(raw, cv2.COLOR_GRAY2RGB)
    rgb = cv2.cvtColor(raw[..., :3], cv2.COLOR_BGR2RGB)
    if raw.shape[2] == 4:
        alpha = raw[..., 3:].astype(np.float32) / 255
        rgb = (rgb * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return rgb


def grey(path: Path) -> np.ndarray:
    """The first channel of a mask, or the alpha of a transparent picture, uint8 [h w]."""
    raw = unchanged(path)
    if raw.ndim == 2:
        return raw
    return raw[..., 3] if raw.shape[2] == 4 else raw[..., 0]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no system takes is not there either
        return False
