"""Reads pickles of arrays from strangers. Unpickling can run any code, so only what arrays need is admitted.

numpy's constructors are let through; scipy's matrices and chumpy's objects become holders of their state, so neither
package is needed; whatever else a pickle wants to build ends the reading.
"""

from __future__ import annotations

import pickle
from typing import IO, Any

import numpy as np

from gsth.errors import InputError


def unpickled(file: IO[bytes], where: str) -> Any:
    """What a pickle of arrays, and of containers of them, holds. Raises InputError for anything else."""
    try:
        return _Arrays(file, encoding="latin1").load()
    except _Refused as error:
        raise InputError(f"{where}: wants to build {error}, which is no array: refused; get the file again") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(f"{where}: cannot be read as a pickle of arrays ({error}); get the file again") from error


_NUMPY = {"_reconstruct": np.zeros(1).__reduce__()[0], "scalar": np.float64(1).__reduce__()[0]}
"""What numpy's own pickles call; taken from such, because where it lies differs between versions."""


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
            return getattr(np, name)
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
