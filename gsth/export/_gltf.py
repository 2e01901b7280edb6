"""Binary glTF 2.0 as a container: arrays in, one .glb out, and back with every size checked."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from gsth.errors import InputError

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
MAX_BYTES = 2**31
_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_COMPONENTS = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_CODES = {np.dtype(kind): code for code, kind in _COMPONENTS.items()}
_SHAPES = {"SCALAR": (), "VEC2": (2,), "VEC3": (3,), "VEC4": (4,), "MAT4": (4, 4)}
_FREE_NUMBERS = 20_000_000
"""How many numbers a file's accessors may hold beyond what its bytes give (zeros of sparse ones, shared views)."""


class Builder:
    """Collects accessors and their bytes."""

    def __init__(self) -> None:
        """Start empty."""
        self.accessors: list[dict[str, Any]] = []
        self._views: list[dict[str, Any]] = []
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, array: np.ndarray, target: int | None = None, normalized: bool = False, bounds: bool = False) -> int:
        """An accessor of an array [n], [n 2..4] or [n 4 4] (column-major), in the array's own type.

        Args:
            array: int8 to uint32 or float32.
            target: ARRAY_BUFFER for vertex attributes, ELEMENT_ARRAY_BUFFER for indices, else None.
            normalized: Integers mean fractions.
            bounds: Write min and max, which positions and times must have.
        """
        array = np.ascontiguousarray(array)
        made = self._accessor(array, normalized, bounds)
        made["bufferView"] = self._view(array.tobytes(), target)
        self.accessors.append(made)
        return len(self.accessors) - 1

    def add_sparse(self, array: np.ndarray) -> int:
        """An accessor of a float array [n 3] that is 0 in most rows; only the others are stored."""
        rows = np.flatnonzero(np.abs(array).max(1) > 0)
        made = self._accessor(array, False, True)
        if len(rows):
            ids = rows.astype(np.uint16 if len(array) <= 65535 else np.uint32)
            made["sparse"] = {
                "count": len(rows),
                "indices": {"bufferView": self._view(ids.tobytes(), None), "componentType": _CODES[ids.dtype]},
                "values": {"bufferView": self._view(np.ascontiguousarray(array[rows]).tobytes(), None)},
            }
        self.accessors.append(made)
        return len(self.accessors) - 1

    @staticmethod
    def _accessor(array: np.ndarray, normalized: bool, bounds: bool) -> dict[str, Any]:
        kind = next(name for name, shape in _SHAPES.items() if shape == array.shape[1:])
        made: dict[str, Any] = {"componentType": _CODES[array.dtype], "count": len(array), "type": kind}
        if normalized:
            made["normalized"] = True
        if bounds:
            flat = array.reshape(len(array), -1)
            made |= {"min": flat.min(0).tolist(), "max": flat.max(0).tolist()}
        return made

    def _view(self, data: bytes, target: int | None) -> int:
        padding = -len(data) % 4
        view: dict[str, Any] = {"buffer": 0, "byteOffset": self._size, "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self._views.append(view)
        self._parts += [data, b"\0" * padding]
        self._size += len(data) + padding
        return len(self._views) - 1

    def glb(self, document: dict[str, Any]) -> bytes:
        """The file: ``document`` with the accessors and their buffer."""
        whole = {
            **document,
            "accessors": self.accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": self._size}],
        }
        text = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", self._size, _BIN)
        return struct.pack("<III", _MAGIC, 2, 12 + len(chunks) + self._size) + chunks + b"".join(self._parts)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


class Document:
    """A parsed .glb; every access is checked, and raises InputError that names the file."""

    def __init__(self, data: bytes, name: Path | str) -> None:
        """Parse the container. Raises InputError where it is no .glb, or damaged."""
        self.name = name
        if len(data) < 20 or struct.unpack_from("<I", data)[0] != _MAGIC:
            raise InputError(f"{name}: is not a binary glTF file (.glb); want one that gsth export wrote")
        _, version, length = struct.unpack_from("<III", data)
        if version != 2 or length != len(data):
            raise InputError(f"{name}: glTF version {version} of {length} bytes, the file has {len(data)}: damaged")
        size, kind = struct.unpack_from("<II", data, 12)
        if kind != _JSON or size > len(data) - 20:
            raise InputError(f"{name}: its first chunk is not JSON, or cut off; export it again")
        try:
            self.json = json.loads(data[20 : 20 + size], parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name}: its JSON is damaged ({error}); export it again") from error
        self._bin = b""
        at = 20 + size
        if at + 8 <= len(data):
            size, kind = struct.unpack_from("<II", data, at)
            if kind != _BIN or size > len(data) - at - 8:
                raise InputError(f"{name}: its binary chunk is cut off; export it again")
            self._bin = data[at + 8 : at + 8 + size]
        self._left = _FREE_NUMBERS + 4 * len(self._bin)

    def get(self, *path: str | int) -> Any:
        """A value of the JSON document by keys and indices."""
        value: Any = self.json
        for i, step in enumerate(path):
            inside = isinstance(value, dict) if isinstance(step, str) else isinstance(value, list)
            if (
                not inside
                or (isinstance(step, int) and not 0 <= step < len(value))
                or (isinstance(step, str) and step not in value)
            ):
                where = ".".join(map(str, path[: i + 1]))
                raise InputError(f"{self.name}: has no {where}; want a file that gsth export glb wrote")
            value = value[step]
        return value

    def number(self, *path: str | int) -> int:
        """A whole number that is not negative."""
        value = self.get(*path)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InputError(f"{self.name}: {'.'.join(map(str, path))} is {value!r}; want a whole number from 0")
        return value

    def array(self, index: Any) -> np.ndarray:
        """The values of an accessor, [n], [n 2..4] or [n 4 4]; normalized integers as float32."""
        if not isinstance(index, int) or isinstance(index, bool):
            raise InputError(f"{self.name}: {index!r} is no accessor; want its number")
        made = self.get("accessors", index)
        where = f"{self.name}: accessor {index}"
        try:
            kind, shape = np.dtype(_COMPONENTS[made["componentType"]]), _SHAPES[made["type"]]
        except (KeyError, TypeError) as error:
            raise InputError(f"{where} is of an unknown type ({error}); export it again") from error
        count = self.number("accessors", index, "count")
        width = int(np.prod(shape, dtype=np.int64))
        self._left -= count * width
        if self._left < 0:
            raise InputError(
                f"{where} promises {count} values, more than a file of this size can mean; export it again"
            )
        if "bufferView" in made:
            values = self._slice(made, count * width, kind, where).reshape(count, *shape).copy()
        else:
            values = np.zeros((count, *shape), kind)
        if "sparse" in made:
            self._scatter(index, values)
        if made.get("normalized") is True and kind.kind != "f":
            return np.maximum(values.astype(np.float32) / np.iinfo(kind).max, -1)
        if kind.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"{where} holds values that are not finite; export it again")
        return values

    def _scatter(self, index: int, values: np.ndarray) -> None:
        where = f"{self.name}: accessor {index}"
        sparse = self.get("accessors", index, "sparse")
        count = self.number("accessors", index, "sparse", "count")
        if count > len(values):
            raise InputError(f"{where} has more sparse values than values; export it again")
        code = self.get("accessors", index, "sparse", "indices").get("componentType")
        if code not in (5121, 5123, 5125):
            raise InputError(f"{where} has sparse indices of type {code!r}; want unsigned integers")
        rows = self._slice(sparse["indices"], count, np.dtype(_COMPONENTS[code]), where)
        if count and int(rows.max()) >= len(values):
            raise InputError(f"{where} has sparse indices beyond its end; export it again")
        width = int(np.prod(values.shape[1:], dtype=np.int64))
        some = self._slice(self.get("accessors", index, "sparse", "values"), count * width, values.dtype, where)
        values[rows] = some.reshape(count, *values.shape[1:])

    def _slice(self, made: Any, numbers: int, kind: np.dtype[Any], where: str) -> np.ndarray:
        """``numbers`` values from a buffer view, after checking that they lie inside it."""
        view = self.get("bufferViews", made["bufferView"] if isinstance(made.get("bufferView"), int) else -1)
        start, offset = view.get("byteOffset", 0), made.get("byteOffset", 0)
        size = view.get("byteLength", -1)
        whole = all(isinstance(v, int) and v >= 0 for v in (start, offset, size))
        need = numbers * kind.itemsize
        if not whole or view.get("buffer") != 0 or "byteStride" in view:
            raise InputError(f"{where}: its buffer view is not one that gsth writes; want buffer 0 without stride")
        if offset + need > size or start + size > len(self._bin):
            raise InputError(f"{where} reaches beyond the file's end: cut off or damaged; export it again")
        return np.frombuffer(self._bin, kind, numbers, start + offset)
