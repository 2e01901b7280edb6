"""Reads arrays from strangers: pickles and npz. Unpickling can run any code, so only what arrays need is admitted.

A pickle builds nothing here but plain containers, numbers and holders, which keep the state that it gives them: for
numpy's arrays and types, for scipy's matrices and for chumpy's objects. Arrays are then made of what was held, with
checks. Not even numpy's own objects take a stranger's state: a made-up one of a dtype ends in its memory.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from gsth.errors import InputError

MAX_NPZ_BYTES = 2**30
"""Archives that unpack to more are refused unread."""
MAX_PICKLE_BYTES = 2**31
MAX_TUPLE = 256
"""Values in a tuple, with those of the tuples in it, each as often as it stands there. Arrays need about ten; tuples
that hold one another twice make a small file that takes for ever where they are compared."""
MAX_DIMENSIONS = 32
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
_FILLERS = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
"""These leave what they change on the stack."""


def unpickled(file: IO[bytes], where: str) -> Any:
    """What a pickle of arrays, and of containers of them, holds. Raises InputError for anything else."""
    try:
        data = file.read(MAX_PICKLE_BYTES)
        _check(data)
        return _made(_Holding(io.BytesIO(data), encoding="latin1").load(), {})
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
        if wild := [name for name, value in arrays.items() if value.dtype.kind == "U" and not _is_text(value)]:
            raise ValueError(f"{wild[0]!r} holds characters that do not exist")
    except Exception as error:  # zip, zlib and numpy raise anything on damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: cannot be read as .npz of plain arrays ({reason}); copy it again") from error
    return arrays


class _Refused(Exception):
    """The name of what a pickle must not build."""


class Held:
    """Stands for a scipy matrix or a chumpy object: keeps its state, does nothing."""

    state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Type:
    """Stands for a dtype of plain numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[fiub][1248]", code):
            raise _Refused(f"an array of type {_short(code)}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """numpy's: version, byte order, and what only structures have."""
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "<")


class _Array:
    """Stands for an array; numpy's own pickles make an empty one and then give it its state."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        """numpy's: version, shape, type, whether columns come first, and the values."""
        shape, kind, columns_first, values = state[-4:]
        values = _bytes(values)
        if len(shape) > MAX_DIMENSIONS or not all(0 <= n <= MAX_PICKLE_BYTES for n in shape):
            raise ValueError(f"an array of {len(shape)} dimensions that no file holds")
        if math.prod(shape) * kind.dtype.itemsize != len(values):
            raise ValueError(f"an array of shape {list(shape)} with {len(values)} bytes")
        flat = np.frombuffer(values, kind.dtype)
        self.value = flat.reshape(shape, order="F" if columns_first else "C")


def _is_text(texts: np.ndarray) -> bool:
    """Whether every character exists; Python itself fails on one that does not."""
    codes = np.ascontiguousarray(texts).reshape(-1).view(texts.dtype.byteorder.replace("|", "=") + "u4")
    return not ((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any()


def _check(data: bytes) -> None:
    """Refuse what keeps the unpickler itself busy: it runs before anything here sees a value.

    These are places in its memo that no writer reaches (for the place 2**31 it takes 32 GiB at once), and tuples above
    ``MAX_TUPLE``: as keys they are hashed anew each time, whole. So the pickle is gone through without making anything;
    of each value only its size is on the stack, None is a mark.
    """
    stack: list[int | None] = []
    memo: dict[int, int | None] = {}
    place: Any  # of the memo, where an operation takes one
    for code, place, at in pickletools.genops(data):
        if code.name in _PUTS:
            if not 0 <= place <= (at or 0):
                raise ValueError(f"place {place} of its memo is out of reach")
            memo[place] = stack[-1]
        elif code.name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif code.name in _GETS:
            stack.append(memo[place])
        elif code.name == "DUP":
            stack.append(stack[-1])
        else:
            size = _size(code.name, _taken(code, stack))
            stack += [None if one is pickletools.markobject else size for one in code.stack_after]


def _taken(code: Any, stack: list[int | None]) -> list[int]:
    """The sizes of what an operation takes off the stack, the topmost first."""
    under, taken = code.stack_before, []
    if pickletools.markobject in under:
        under = under[: under.index(pickletools.markobject)]
        while (top := stack.pop()) is not None:
            taken.append(top)
    return taken + [stack.pop() for _ in under]


def _size(name: str, taken: list[int]) -> int:
    """Of what an operation leaves; whatever is no tuple counts 1."""
    if name in _FILLERS:
        return taken[-1]
    size = 1 + sum(taken) if name in _TUPLES else 1
    if size > MAX_TUPLE:
        raise ValueError(f"tuples of more than {MAX_TUPLE} values")
    return size


def _short(value: Any) -> str:
    """Some of a text, else only its type: lists that hold one another twice take for ever to be written out."""
    return repr(value[:40]) if isinstance(value, str) else type(value).__name__


_NDARRAY = object()
"""Stands for numpy.ndarray, so that a pickle can name it but not call it."""


def _bytes(value: Any) -> bytes:
    """Bytes, which Python 2 wrote as text."""
    if isinstance(value, str):
        return value.encode("latin1")
    if not isinstance(value, bytes):
        raise ValueError(f"{type(value).__name__} in the place of bytes")
    return value


def _made(value: Any, known: dict[int, Any]) -> Any:
    """The value with arrays in the place of their holders; ``known`` are those made before, by identity."""
    if id(value) in known:
        return known[id(value)]
    made = value
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without values")
        made = value.value
    elif isinstance(value, (list, tuple, set)):
        made = type(value)(_made(one, known) for one in value)
    elif isinstance(value, dict):
        made = {key: _made(one, known) for key, one in value.items()}
    elif isinstance(value, Held):
        value.state = _made(value.state, known)
    known[id(value)] = made
    return made


class _Holding(pickle.Unpickler):
    """Admits holders. What a pickle may call are methods, for a function's defaults it could change, a method's not."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("_reconstruct", "scalar"):
            return self._reconstruct if name == "_reconstruct" else self._scalar
        if module == "numpy" and name in ("ndarray", "dtype"):
            return _Type if name == "dtype" else _NDARRAY
        if module == "_codecs" and name == "encode":
            return self._latin1
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return self._rebuild
        if module in ("__builtin__", "builtins") and name in ("object", "set"):
            return object if name == "object" else set
        if module.split(".")[0] in ("scipy", "chumpy"):
            return Held
        raise _Refused(f"{module:.80}.{name:.80}")

    def _reconstruct(self, cls: object, shape: object, code: object) -> _Array:
        """numpy's function of that name."""
        if cls is not _NDARRAY:
            raise _Refused("an array of a class of its own")
        return _Array()

    def _scalar(self, kind: _Type, value: bytes | str) -> Any:
        """numpy's function of that name."""
        return np.frombuffer(_bytes(value), kind.dtype, 1)[0]

    def _rebuild(self, cls: type, base: type, state: Any) -> Held:
        """``copyreg._reconstructor`` for holders only."""
        if cls is not Held:
            raise _Refused(f"{cls.__name__}")
        return Held()

    def _latin1(self, text: str, encoding: str) -> bytes:
        """``_codecs.encode``, by which Python 3 writes bytes in old protocols."""
        if encoding != "latin1":
            raise _Refused(f"text of encoding {_short(encoding)}")
        return text.encode("latin1")
