"""Reads FLAME's own files (2020, 2023, 2023 Open) without chumpy and without running anything that is in them.

The ``.pkl`` are Python 2 pickles of numpy arrays, a scipy matrix and chumpy objects. Unpickling can run any code, so
only the few constructors that these need are admitted, and scipy and chumpy ones are replaced by plain holders.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gsth.errors import InputError

SHAPES, EXPRESSIONS, JOINTS = 300, 100, 5
"""FLAME's ``shapedirs`` are 300 identity directions, then 100 expressions; joints: root, neck, jaw, left, right eye."""
LICENCE = (
    "FLAME is the work of the Max Planck Institute for Intelligent Systems and licensed by it: FLAME 2020 and 2023 for "
    "non-commercial research, FLAME 2023 Open under CC BY 4.0. What you make from a track on it may fall under that "
    "licence (https://flame.is.tue.mpg.de)"
)


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
    raw = _npz(path) if path.suffix.lower() == ".npz" else _pkl(path)
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
    basis = np.moveaxis(arrays["shapedirs"], -1, 0)
    return FlameArrays(
        template=arrays["v_template"],
        faces=arrays["f"].astype(np.int64),
        shape=basis[:SHAPES],
        expr=basis[SHAPES:],
        joint_regressor=arrays["J_regressor"],
        weights=arrays["weights"],
    )


def unpickled(file: IO[bytes], where: str) -> Any:
    """What a pickle of arrays, and of containers of them, holds. Raises InputError for anything else."""
    try:
        return _Arrays(file, encoding="latin1").load()
    except _Refused as error:
        raise InputError(f"{where}: wants to build {error}, which is not an array: refused; get the file again") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(f"{where}: cannot be read as a pickle of arrays ({error}); get the file again") from error


_NUMPY = {"_reconstruct": np.zeros(1).__reduce__()[0], "scalar": np.float64(1).__reduce__()[0]}
"""What numpy's own pickles call; taken from such, because where it lies differs between versions."""


class _Refused(Exception):
    """The name of what a pickle must not build."""


class _Held:
    """Stands for a scipy matrix or a chumpy object: keeps its state, does nothing."""

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def _rebuild(cls: type, base: type, state: Any) -> Any:
    """``copyreg._reconstructor`` for holders only."""
    if cls is not _Held:
        raise _Refused(f"{cls.__name__}")
    return _Held()


class _Arrays(pickle.Unpickler):
    """Admits numpy arrays and holders."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in _NUMPY:
            return _NUMPY[name]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module == "_codecs" and name == "encode":
            return _latin1
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _rebuild
        if module in ("__builtin__", "builtins") and name in ("object", "set"):
            return object if name == "object" else set
        if module.split(".")[0] in ("scipy", "chumpy"):
            return _Held
        raise _Refused(f"{module}.{name}")


def _latin1(text: str, encoding: str) -> bytes:
    """``_codecs.encode``, by which Python 3 writes bytes in old protocols."""
    if encoding != "latin1":
        raise _Refused(f"text of encoding {encoding!r}")
    return text.encode("latin1")


def _pkl(path: Path) -> Mapping[str, Any]:
    with path.open("rb") as file:
        raw = unpickled(file, str(path))
    if not isinstance(raw, dict):
        raise InputError(f"{path}: holds a {type(raw).__name__}, wanted FLAME's dictionary of arrays")
    return {str(k): v for k, v in raw.items()}


def _npz(path: Path) -> Mapping[str, Any]:
    try:
        with np.load(path) as file:  # never unpickles: numpy's own default
            return dict(file)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as .npz of plain arrays ({error}); get the file again") from error


def _array(value: Any, where: str) -> np.ndarray:
    """An array, a chumpy array's value, or a sparse matrix written out."""
    if isinstance(value, _Held):
        state = value.state
        if "x" in state:
            return _array(state["x"], where)
        if {"data", "indices", "indptr"} <= set(state):
            return _dense(state, where)
        raise InputError(f"{where}: is an object without values ({', '.join(state) or 'empty'}); get the file again")
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return value.astype(np.float64)
    raise InputError(f"{where}: is a {type(value).__name__}, wanted numbers")


def _dense(state: Mapping[str, Any], where: str) -> np.ndarray:
    """A compressed sparse matrix; J_regressor has 5 rows, so its form follows from the length of ``indptr``."""
    data, indices, indptr = (np.asarray(state[n]) for n in ("data", "indices", "indptr"))
    shape = tuple(int(n) for n in state.get("_shape", state.get("shape", ())))
    if len(shape) != 2 or len(indptr) - 1 not in shape or len(data) != len(indices):
        raise InputError(f"{where}: is a sparse matrix that does not hold together; get the file again")
    out = np.zeros(shape)
    major = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    by_rows = len(indptr) - 1 == shape[0]
    out[(major, indices) if by_rows else (indices, major)] = data
    return out
