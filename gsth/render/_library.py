"""Finds, loads or builds the compiled kernels, and mirrors the structs of cuda_ext/include/gsth.h for ctypes."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from functools import cache
from pathlib import Path

from torch import Tensor

from gsth.errors import BackendError
from gsth.render import _build

_POINTER = ctypes.c_void_p


def _struct(name: str, fields: str) -> type[ctypes.Structure]:
    """A ctypes struct; ``fields`` are names, pointers unless followed by :i64, :i32 or :f32."""
    kinds = {"": _POINTER, "i64": ctypes.c_int64, "i32": ctypes.c_int32, "f32": ctypes.c_float}
    pairs = [field.partition(":")[::2] for field in fields.split()]
    return type(name, (ctypes.Structure,), {"_fields_": [(field, kinds[kind]) for field, kind in pairs]})


SplatsC = _struct("SplatsC", "n:i64 bases:i32 means quats scales opacities sh")
CameraC = _struct("CameraC", "viewmat K width:i32 height:i32 antialiased:i32")
ListsC = _struct("ListsC", "packs boxes slots tile_firsts entries hits")
ImageGradsC = _struct("ImageGradsC", "rgb alpha depth v_rgb v_alpha v_depth v_means2d")
SplatGradsC = _struct("SplatGradsC", "means quats scales opacities sh viewmat grad_px")
RiggedC = _struct(
    "RiggedC",
    "n:i64 faces_count:i64 verts_count:i64 face_ids faces verts means_tri quats_tri log_scales logit_opacities",
)
RigGradsC = _struct(
    "RigGradsC",
    "v_means v_quats v_scales v_opacities verts means_tri quats_tri log_scales logit_opacities",
)

_SIGNATURES = {
    "gsth_build_id": ("", ctypes.c_char_p),
    "gsth_last_error": ("", ctypes.c_char_p),
    "gsth_isa": ("", ctypes.c_char_p),
    "gsth_set_isa": ("s", ctypes.c_int),
    "gsth_tiles": ("ii", ctypes.c_int32),
    "gsth_project": ("pppppi", ctypes.c_int),
    "gsth_blend": ("lpppipppi", ctypes.c_int),
    "gsth_backward": ("ppppppi", ctypes.c_int),
    "gsth_rig": ("pppppi", ctypes.c_int),
    "gsth_rig_backward": ("ppi", ctypes.c_int),
    "gsth_l1_ssim": ("iipppfppi", ctypes.c_int),
}
_LETTERS = {
    "s": ctypes.c_char_p,
    "i": ctypes.c_int32,
    "l": ctypes.c_int64,
    "f": ctypes.c_float,
    "p": _POINTER,
}


def pointer(tensor: Tensor | None) -> int | None:
    """Address of a tensor's data, or NULL."""
    return None if tensor is None else tensor.data_ptr()


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    for name, (letters, result) in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = [_LETTERS[letter] for letter in letters]
        function.restype = result
    return library


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gsth"


def _opened(path: Path, wanted: str | None) -> ctypes.CDLL | None:
    """The library at ``path`` if it loads here and was built from the sources at hand."""
    if not path.is_file():
        return None
    try:
        library = _open(path)
    except (OSError, AttributeError):
        return None
    return library if wanted is None or library.gsth_build_id().decode() == wanted else None


@cache
def find() -> ctypes.CDLL | str:
    """The kernels, or why there are none.

    The library of the installation is taken unless it is stale (its sources changed); else one in the user's cache,
    which is compiled when it is missing. Set GSTH_NO_NATIVE=1 to do without.
    """
    if _build.switched_off():
        return "switched off by GSTH_NO_NATIVE"
    root = _build.source_root()
    wanted = None if root is None else _build.build_id(root)
    installed = _opened(Path(__file__).parents[1] / "_kernels_cpu.so", wanted)
    if installed is not None:
        return installed
    if root is None or wanted is None:
        return "neither the compiled kernels nor their sources are installed; reinstall gsth"
    path = _cache_folder() / f"kernels_cpu-{platform.machine()}-{wanted}.so"
    try:
        if not path.is_file():
            _build.compile_cpu(root, path)
    except OSError as error:
        return f"no compiled kernels, and compiling them failed ({error}); install g++, or set CXX"
    except subprocess.CalledProcessError as error:
        return f"no compiled kernels, and {_build.compiler()} failed: {error.stderr.strip()[-500:]}"
    return _opened(path, wanted) or f"{path} does not load; delete it and try again"


def kernels() -> ctypes.CDLL:
    """The kernels; raises BackendError with the reason where there are none."""
    library = find()
    if isinstance(library, str):
        raise BackendError(f"render backend native cannot run: {library}")
    return library
