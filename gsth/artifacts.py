"""What gsth writes: folders that are whole or absent.

An artifact is a folder: ``meta.json`` (kind, format version, gsth version, frame, units, and what the writer adds:
config, seed, sources), ``arrays.safetensors`` and, for long series, ``.npy`` files that are memory-mapped. It is
written under a temporary name and renamed; loading never unpickles.

Artifacts come from other people too, so nothing in them is believed: links are refused, names must be plain, sizes are
checked before anything is read, and ``files`` in meta.json tells damage (every file's size and SHA-256) from content.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
import types
import typing
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gsth.errors import ArtifactError, GsthError, InputError, writes

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

FORMATS: dict[str, int] = {}
"""Format version of each kind; a kind that is not named is at version 1. Raise it when old readers would go wrong."""
FRAME = "OpenCV camera axes: x right, y down, z forward; quaternions wxyz"
UNITS = "m, s, rad, px"
META, ARRAYS = "meta.json", "arrays.safetensors"
SERIES = {"images": "frames.npy", "mattes": "mattes.npy"}
"""Fields that are memory-mapped from files of their own: they do not fit into memory."""

MAX_META_BYTES, MAX_ARRAYS_BYTES = 64 * 2**20, 8 * 2**30
"""Larger ones gsth never writes; they are refused before they are read."""
HASHED_BYTES = 2**30
"""Larger files (memory-mapped series) are known by their size alone: hashing them would take longer than using them."""

_held: dict[Path, int] = {}
"""Locks of this process and how often each is taken."""


def check_out(folder: Path | str, kind: str) -> None:
    """Say no before long work where ``folder`` holds something else than an artifact of this kind.

    An absent or empty folder is fine, and so is an artifact of the kind: it will be replaced.

    Raises:
        InputError: It is a file, a folder of something else, or an artifact of another kind.
    """
    folder = Path(folder)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, wanted the name of a folder for the {kind}; choose another name")
    if not any(folder.iterdir()):
        return
    try:
        found = json.loads((folder / META).read_text())["kind"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{folder}: is a folder that gsth did not write; to not overwrite it, choose another name for the {kind}"
        ) from None
    if found != kind:
        raise InputError(f"{folder}: holds a {found}, this would write a {kind}; choose another name or remove it")


def is_kind(folder: Path | str, kind: str) -> bool:
    """Whether a whole artifact of this kind, of a version that can be read, lies there."""
    try:
        read_meta(folder, kind)
    except GsthError:
        return False
    return True


@contextlib.contextmanager
def lock(folder: Path | str) -> Iterator[None]:
    """Hold ``folder`` (which need not exist) against other runs; taking it again in the same process is fine.

    The lock lies beside the folder as ``.NAME.lock``; the system frees it when its process ends, however that ends.

    Raises:
        InputError: Another run holds it; the message names its process, machine and age.
        OutputError: The place cannot be written.
    """
    path = Path(folder).absolute()
    path = path.with_name(f".{path.name}.lock")
    if path in _held:
        _held[path] += 1
        try:
            yield
        finally:
            _held[path] -= 1
        return
    with writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _take(path, Path(folder))
    _held[path] = 1
    try:
        yield
    finally:
        del _held[path]
        path.unlink(missing_ok=True)  # before closing: who opened it meanwhile sees that it has no name and tries anew
        os.close(file)


@contextlib.contextmanager
def writing(folder: Path | str, kind: str, meta: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A temporary folder that replaces ``folder`` when the block succeeds and vanishes when it fails.

    Where the block wrote no meta.json, one of this kind with ``meta`` is added.

    Raises:
        InputError: As ``check_out`` and ``lock``.
        OutputError: It cannot be written (permission, space).
    """
    folder = Path(folder).absolute()
    with lock(folder):
        check_out(folder, kind)
        part, old = (folder.with_name(f".{folder.name}.{word}") for word in ("part", "old"))
        with writes(folder):
            for left in (part, old):  # of a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            part.mkdir(parents=True)
            try:
                yield part
                if not (part / META).exists():
                    write_meta(part, kind, **(meta or {}))
                _seal(part)
                if folder.exists():
                    folder.rename(old)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
                shutil.rmtree(old, ignore_errors=True)


def write_meta(folder: Path | str, kind: str, /, **meta: Any) -> None:
    """Write ``meta.json``; values may be dataclasses, paths, tuples and what JSON has.

    What gsth notes itself (kind, version, gsth, frame, units, made) always tells of this writing, so that the meta of
    a loaded artifact can be handed on.
    """
    own = {
        "kind": kind,
        "version": FORMATS.get(kind, 1),
        "gsth": gsth_version(),
        "frame": FRAME,
        "units": UNITS,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    text = json.dumps(_plain(meta) | own, indent=1) + "\n"
    _atomic_bytes(Path(folder) / META, text.encode())


def read_meta(folder: Path | str, kind: str) -> dict[str, Any]:
    """``meta.json`` of an artifact, after checking that it is of this kind and of a version that can be read.

    Raises:
        InputError: There is no such folder, or it holds something else.
        ArtifactError: It is damaged or was written by a newer gsth.
    """
    folder = Path(folder)
    if not folder.exists():
        raise InputError(f"{folder}: there is no such {kind}")
    if not (folder / META).is_file():
        raise InputError(f"{folder}: is not a {kind} (it has no {META}); wanted a folder that gsth wrote")
    try:
        _check_plain(folder)
        meta = json.loads((folder / META).read_bytes())
        found, version = str(meta["kind"]), int(meta["version"])
        files = dict(meta.get("files", {}))
        _check_sizes(folder, files)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        raise ArtifactError(f"{folder / META}: is damaged ({error}); make the {kind} again") from error
    if found != kind:
        raise InputError(f"{folder}: holds a {found}, wanted a {kind}")
    newest = FORMATS.get(kind, 1)
    if version > newest:
        raise ArtifactError(
            f"{folder}: {kind} of format {version}, written by gsth {meta.get('gsth')}; this gsth reads up to "
            f"{newest}; update gsth"
        )
    return meta


def save_arrays(folder: Path | str, arrays: Mapping[str, Tensor], name: str = ARRAYS) -> None:
    """Write tensors (any device, any dtype of safetensors) to one file in an existing folder."""
    from safetensors.torch import save

    # save_file would write in place and refuse shared storage; contiguous clones on the CPU are always its own
    own = {key: value.detach().cpu().contiguous().clone() for key, value in arrays.items()}
    _atomic_bytes(Path(folder) / name, save(own))


def load_arrays(folder: Path | str, name: str = ARRAYS) -> dict[str, Tensor]:
    """The tensors of ``save_arrays``, on the CPU.

    Raises:
        ArtifactError: The file is missing or damaged, or too large to be one of gsth's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / name
    try:
        if path.stat().st_size > MAX_ARRAYS_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes, at most {MAX_ARRAYS_BYTES} are read")
        _check_hash(path)
        return load_file(path)
    except (OSError, ValueError, SafetensorError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"{path}: is missing or damaged ({error}); make it again") from error


def save(coin: Any, folder: Path | str, **meta: Any) -> None:
    """Write a coin as an artifact whose kind is the coin's name in small letters; ``meta`` goes into meta.json."""
    with writing(folder, _kind(type(coin))) as part:
        save_into(coin, part, **meta)


def save_into(coin: Any, folder: Path | str, **meta: Any) -> None:
    """Like ``save``, into an existing folder, for use inside ``writing``.

    A memory-mapped series that already lies there under its own name (frames.npy, mattes.npy) is left in place.
    """
    arrays: dict[str, Tensor] = {}
    head = getattr(coin, "head", None) or getattr(getattr(coin, "motion", None), "head", None)
    if head is not None:
        meta.setdefault("head", head)
    packed = _pack(coin, "", Path(folder), arrays)
    save_arrays(folder, arrays)
    write_meta(folder, _kind(type(coin)), coin=packed, **meta)


def load(cls: type[T], folder: Path | str) -> T:
    """Read a coin back; series are memory-mapped read-only.

    Raises:
        InputError: As ``read_meta``.
        ArtifactError: As ``read_meta``, and where the content does not make a coin of this class.
    """
    meta = read_meta(folder, _kind(cls))
    arrays = load_arrays(folder)
    try:
        return _unpack(cls, meta["coin"], Path(folder), arrays)
    except (KeyError, TypeError, ValueError, OSError, AttributeError, OverflowError, RecursionError) as error:
        raise ArtifactError(f"{folder}: does not hold a whole {cls.__name__} ({error}); make it again") from error


def sha256(path: Path | str) -> str:
    """Hash of a file's bytes, hexadecimal; tells whether a clip is the very one that was trained on."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


# ---------------------------------------------------------------------------------------------- coins


def _kind(cls: type) -> str:
    return cls.__name__.lower()


def _pack(value: Any, name: str, folder: Path, arrays: dict[str, Tensor]) -> Any:
    """What JSON can hold of a value; tensors go to ``arrays`` and series to files, under the dotted ``name``."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        prefix = f"{name}." if name else ""
        return {
            f.name: _pack(getattr(value, f.name), prefix + f.name, folder, arrays) for f in dataclasses.fields(value)
        }
    if isinstance(value, np.ndarray):
        _write_series(folder / SERIES[name], value)
        return {"series": SERIES[name]}
    if hasattr(value, "detach"):  # a tensor; torch is not imported for coins that have none
        tensor: Any = value
        arrays[name] = tensor
        return {"array": name}
    return _plain(value)


def _write_series(path: Path, series: np.ndarray) -> None:
    if isinstance(series, np.memmap):
        series.flush()
        if path.exists() and os.path.samefile(str(series.filename), path):
            return
    np.save(path, series, allow_pickle=False)


def _unpack(hint: Any, value: Any, folder: Path, arrays: Mapping[str, Tensor]) -> Any:
    """The inverse of ``_pack``, led by the type that the field declares."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if dataclasses.is_dataclass(hint):
        hints = _hints(hint)
        if unknown := set(value) - set(hints):
            raise ValueError(f"unknown field(s) {sorted(unknown)}")
        return hint(**{key: _unpack(hints[key], item, folder, arrays) for key, item in value.items()})  # type: ignore[operator]
    if hint is np.ndarray:
        if value["series"] not in SERIES.values():
            raise ValueError(f"unknown series {value['series']!r}")
        series = np.load(folder / value["series"], mmap_mode="r", allow_pickle=False)
        if series.dtype != np.uint8:
            raise ValueError(f"{value['series']} holds {series.dtype}, wanted uint8")
        return series
    if isinstance(value, dict) and "array" in value:
        return arrays[value["array"]]
    if typing.get_origin(hint) is tuple:
        return tuple(value)
    return Path(str(value)) if hint is Path else value


def _hints(cls: Any) -> dict[str, Any]:
    import torch

    return typing.get_type_hints(cls, localns={"np": np, "Tensor": torch.Tensor})


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, np.generic):
        return value.item()
    return value


# ---------------------------------------------------------------------------------------------- files


def gsth_version() -> str:
    """The installed version, for files to name who wrote them."""
    try:
        return installed_version("gsth")
    except PackageNotFoundError:
        return "0+sources"


def _take(path: Path, folder: Path) -> int:
    """An open, locked lock file that still has its name."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = path.exists() and os.fstat(file).st_ino == path.stat().st_ino
        except BlockingIOError:
            owner = os.read(file, 200).decode(errors="replace").strip() or "another process"
            age = time.time() - os.fstat(file).st_mtime
            since = f"for {age:.0f} s" if age >= 0 else "since before the clock was set back"
            os.close(file)
            raise InputError(
                f"{folder}: is being written by {owner} {since}; wait for it, stop it, or choose another name"
            ) from None
        if same:
            os.truncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return file
        os.close(file)


def _seal(folder: Path) -> None:
    """Write every file's size and hash into meta.json."""
    told = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != META:
            size = path.stat().st_size
            told[path.name] = {"bytes": size} | ({"sha256": sha256(path)} if size <= HASHED_BYTES else {})
    meta = json.loads((folder / META).read_text())
    _atomic_bytes(folder / META, (json.dumps(meta | {"files": told}, indent=1) + "\n").encode())


def _check_plain(folder: Path) -> None:
    """Refuse links, which could lead anywhere, and a meta.json that would fill the memory."""
    for entry in os.scandir(folder):
        if entry.is_symlink():
            raise ValueError(f"{entry.name} is a link; an artifact holds plain files")
    size = (folder / META).stat().st_size
    if size > MAX_META_BYTES:
        raise ValueError(f"it has {size} bytes, at most {MAX_META_BYTES} are read")


def _check_sizes(folder: Path, files: Mapping[str, Any]) -> None:
    for name, told in files.items():
        if name != Path(name).name or name in (".", ".."):
            raise ValueError(f"it names a file outside the folder, {name!r}")
        path = folder / name
        size = path.stat().st_size if path.is_file() else None
        if size != told["bytes"]:
            raise ValueError(f"{name} has {size or 'no'} bytes, it was written with {told['bytes']}")


def _check_hash(path: Path) -> None:
    """Compare a file with what meta.json beside it tells, where it tells anything (older artifacts do not)."""
    meta = path.with_name(META)
    files = json.loads(meta.read_bytes()).get("files", {}) if meta.is_file() else {}
    wanted = files.get(path.name, {}).get("sha256")
    if wanted is not None and wanted != sha256(path):
        raise ValueError("its content is not what was written: the hash differs")


def _atomic_bytes(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
