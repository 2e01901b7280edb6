"""Reads arrays from strangers: pickles and npz. Unpickling can run any code, so only what arrays need is admitted.

numpy's constructors are let through; scipy's matrices and chumpy's objects become holders of their state, so neither
package is needed; whatever else a pickle wants to build ends the reading.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from gsth.errors import InputError

MAX_NPZ_BYTES = 2**30
"""Archives that unpack to more are refused unread."""


def unpickled(file: IO[bytes], where: str) -> Any:
    """What a pickle of arrays, and of containers of them, holds. Raises InputError for anything else."""
    try:
        return _Arrays(file, encoding="latin1").load()
    except _Refused as error:
        raise InputError(f"{where}: wants to build {error}, which is no array: refused; get the file again") from None
    except Exception as error:  # the unpickler raises anything on damaged files, MemoryError too
        reason = str(error) or type(error).__name__
        raise InputError(f"{where}: cannot be read as a pickle of arrays ({reason}); get the file again") from error


def unpacked(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz, by name.

    Raises:
        InputError: It is missing or damaged, unpacks to more than 1 GiB, or holds anything but arrays of plain values.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(part.file_size for part in packed.infolist())
        if size > MAX_NPZ_BYTES:
            raise ValueError(f"it unpacks to {size} bytes, at most {MAX_NPZ_BYTES} are read")
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if foreign := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
            raise ValueError(f"{foreign[0]!r} is no array")  # numpy hands out the bytes of other files
    except Exception as error:  # zip, zlib and numpy raise anything on damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read as .npz of plain arrays ({reason}); copy it again") from error
    return arrays


_NDARRAY = object()
"""Stands for numpy.ndarray, so that a pickle can name it but not call it with a shape of its own."""


def _empty(cls: object, shape: object, code: object) -> np.ndarray:
    """numpy's ``_reconstruct`` as numpy's own pickles call it; the values come with the state that follows."""
    if cls is not _NDARRAY or shape != (0,):
        raise _Refused(f"an array of shape {shape!r:.40}")
    return np.ndarray((0,), np.int8)


_NUMPY = {"_reconstruct": _empty, "scalar": np.float64(1).__reduce__()[0]}
"""What numpy's own pickles call; the second taken from such, because where it lies differs between versions."""


class _Refused(Exception):
    """The name of what a pickle must not build."""


class Held:
    """Stands for a scipy matrix or a chumpy object: keeps its state, does nothing."""

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def _rebuild(cls: type, base: type, state: Any) -> Any:
    """``copyreg._reconstructor`` for holders only."""
    if cls is not Held:
        raise _Refused(f"{cls.__name__}")
    return Held()


class _Arrays(pickle.Unpickler):
    """Admits numpy arrays and holders."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in _NUMPY:
            return _NUMPY[name]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return np.dtype if name == "dtype" else _NDARRAY
        if module == "_codecs" and name == "encode":
            return _latin1
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _rebuild
        if module in ("__builtin__", "builtins") and name in ("object", "set"):
            return object if name == "object" else set
        if module.split(".")[0] in ("scipy", "chumpy"):
            return Held
        raise _Refused(f"{module}.{name}")


def _latin1(text: str, encoding: str) -> bytes:
    """``_codecs.encode``, by which Python 3 writes bytes in old protocols."""
    if encoding != "latin1":
        raise _Refused(f"text of encoding {encoding!r}")
    return text.encode("latin1")
