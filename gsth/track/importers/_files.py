"""Reading what importers have in common; every complaint names the file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gsth.errors import InputError


def wanted(paths: Iterable[Path], what: str) -> None:
    """Raises InputError that names the first missing file and how many more there are."""
    missing = [p for p in paths if not p.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: is missing{more}; {what}")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object."""
    wanted([path], what)
    try:
        value = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: is not JSON ({error}); copy it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, wanted an object with frames")
    return value


def peek(path: Path) -> dict[str, Any]:
    """The first frame of a transforms file with the file's own keys beside; empty where it cannot be read."""
    try:
        whole = json.loads(path.read_text())
        return {**whole, **whole["frames"][0]}
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return {}


def key(mapping: Mapping[str, Any], name: str, where: Path) -> Any:
    """A value that must be there."""
    if name not in mapping:
        raise InputError(f"{where}: has no {name!r}; it has {', '.join(map(str, mapping)) or 'nothing'}")
    return mapping[name]


def array(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Finite numbers of a shape, -1 for any length; float64."""
    try:
        out = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: is not numbers ({error})") from error
    if out.ndim != len(shape) or any(n not in (-1, m) for n, m in zip(shape, out.shape, strict=True)):
        raise InputError(f"{where}: is {list(out.shape)}, wanted {list(shape)} (-1: any)")
    if not np.isfinite(out).all():
        raise InputError(f"{where}: holds values that are not finite")
    return out


def picture(path: Path) -> np.ndarray:
    """A colour picture, uint8 [h w 3]; where it is transparent, white shows."""
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise InputError(f"{path}: is missing or not a picture")
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
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None:
        raise InputError(f"{path}: is missing or not a picture")
    if raw.ndim == 2:
        return raw
    return raw[..., 3] if raw.shape[2] == 4 else raw[..., 0]
