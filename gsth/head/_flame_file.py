"""Reads FLAME's own files (2020, 2023, 2023 Open) without chumpy and without running anything that is in them.

The ``.pkl`` are Python 2 pickles of numpy arrays, a scipy matrix and chumpy objects; see ``restricted``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsth.errors import InputError
from gsth.head import restricted

MAX_VERTICES = 100_000
"""Of a model; FLAME has 5,023. What claims more is refused before memory is taken for it."""
SHAPES, EXPRESSIONS, JOINTS = 300, 100, 5
"""FLAME's ``shapedirs`` are 300 identity directions, then 100 expressions; joints: root, neck, jaw, left, right eye."""


@dataclass(frozen=True, eq=False)
class FlameArrays:
    """What is used of a file, in FLAME's own frame (y up, the face looks along +z), m, float64."""

    template: np.ndarray
    """[v 3]."""
    faces: np.ndarray
    """[f 3]."""
    shape: np.ndarray
    """[300 v 3]."""
    expr: np.ndarray
    """[100 v 3]."""
    joint_regressor: np.ndarray
    """[5 v]."""
    weights: np.ndarray
    """[v 5]."""


def read(path: Path) -> FlameArrays:
    """Read a model file.

    Raises:
        InputError: It is missing, damaged, holds anything but arrays, or is not laid out as FLAME is.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file, wanted a FLAME model (.npz or .pkl) from flame.is.tue.mpg.de")
    raw = restricted.unpacked(path) if path.suffix.lower() == ".npz" else _pkl(path)
    wanted = ("v_template", "f", "shapedirs", "J_regressor", "weights")
    absent = [name for name in wanted if name not in raw]
    if absent:
        raise InputError(f"{path}: has no {', '.join(absent)}; wanted FLAME's layout ({', '.join(wanted)})")
    arrays = {name: _array(raw[name], f"{path}: {name}") for name in wanted}
    v = len(arrays["v_template"])
    shapes = {
        "v_template": (v, 3), "f": (len(arrays["f"]), 3), "shapedirs": (v, 3, SHAPES + EXPRESSIONS),
        "J_regressor": (JOINTS, v), "weights": (v, JOINTS),
    }  # fmt: skip
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise InputError(f"{path}: {name} is {list(arrays[name].shape)}, wanted {list(shape)} as in FLAME")
        if not np.isfinite(arrays[name]).all():
            raise InputError(f"{path}: {name} holds values that are not finite; get the file again")
    if not ((arrays["f"] >= 0) & (arrays["f"] < v) & (arrays["f"] % 1 == 0)).all():
        raise InputError(f"{path}: f names vertices that are not there; wanted whole numbers from 0 to {v - 1}")
    basis = np.moveaxis(arrays["shapedirs"], -1, 0)
    return FlameArrays(
        template=arrays["v_template"],
        faces=arrays["f"].astype(np.int64),
        shape=basis[:SHAPES],
        expr=basis[SHAPES:],
        joint_regressor=arrays["J_regressor"],
        weights=arrays["weights"],
    )


def _pkl(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        raw = restricted.unpickled(file, str(path))
    if not isinstance(raw, dict):
        raise InputError(f"{path}: holds a {type(raw).__name__}, wanted FLAME's dictionary of arrays")
    return {name: value for name, value in raw.items() if isinstance(name, str)}


def _array(value: Any, where: str) -> np.ndarray:
    """An array, a chumpy array's value, or a sparse matrix written out."""
    if isinstance(value, restricted.Held):
        state = value.state
        if "x" in state:
            return _array(state["x"], where)
        if {"data", "indices", "indptr"} <= set(state):
            return _dense(state, where)
        names = ", ".join(name for name in state if isinstance(name, str))
        raise InputError(f"{where}: is an object without values ({names or 'empty':.80}); get the file again")
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return value.astype(np.float64)
    raise InputError(f"{where}: is a {type(value).__name__}, wanted numbers")


def _dense(state: Mapping[str, Any], where: str) -> np.ndarray:
    """A compressed sparse matrix; J_regressor has 5 rows, so its form follows from the length of ``indptr``."""
    try:
        data, indices, indptr = (state[n] for n in ("data", "indices", "indptr"))
        if not all(isinstance(a, np.ndarray) and a.ndim == 1 for a in (data, indices, indptr)):
            raise ValueError("its parts are no arrays")
        if indptr[0] != 0 or indptr[-1] != len(data) or (np.diff(indptr) < 0).any():
            raise ValueError("its columns do not fit its values")
        shape = tuple(int(n) for n in state.get("_shape", state.get("shape", ())))
        if len(shape) != 2 or max(shape) > MAX_VERTICES or min(shape) > JOINTS or len(indptr) - 1 not in shape:
            raise ValueError(f"its {len(shape)} dimensions are not those of a regressor")
        out = np.zeros(shape)
        major = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        by_rows = len(indptr) - 1 == shape[0]
        out[(major, indices) if by_rows else (indices, major)] = data
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise InputError(
            f"{where}: is a sparse matrix that does not hold together ({error}); get the file again"
        ) from error
    return out
