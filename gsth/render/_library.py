"""Finds, loads or builds the compiled kernels, and mirrors the structs of cuda_ext/include/gsth.h for ctypes."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from gsth.errors import BackendError
from gsth.render import _build

_POINTER = ctypes.c_void_p
Signatures = Mapping[str, tuple[str, Any]]
"""Function name -> letters of its arguments (s text, i int32, l int64, f float32, p pointer), type of its result."""


def struct(name: str, fields: str) -> type[ctypes.Structure]:
    """A ctypes struct; ``fields`` are names, pointers unless followed by :i64, :i32 or :f32."""
    kinds = {"": _POINTER, "i64": ctypes.c_int64, "i32": ctypes.c_int32, "f32": ctypes.c_float}
    pairs = [field.partition(":")[::2] for field in fields.split()]
    return type(name, (ctypes.Structure,), {"_fields_": [(field, kinds[kind]) for field, kind in pairs]})


SplatsC = struct("SplatsC", "n:i64 bases:i32 means quats scales opacities sh")
CameraC = struct("CameraC", "viewmat K width:i32 height:i32 antialiased:i32")
ListsC = struct("ListsC", "packs boxes slots tile_firsts entries hits")
ImageGradsC = struct("ImageGradsC", "rgb alpha depth v_rgb v_alpha v_depth v_means2d")
SplatGradsC = struct("SplatGradsC", "means quats scales opacities sh viewmat grad_px")
RiggedC = struct(
    "RiggedC",
    "n:i64 faces_count:i64 verts_count:i64 face_ids faces verts means_tri quats_tri log_scales logit_opacities",
)
RigGradsC = struct(
    "RigGradsC",
    "v_means v_quats v_scales v_opacities verts means_tri quats_tri log_scales logit_opacities",
)

_SIGNATURES: Signatures = {
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


def with_signatures(library: ctypes.CDLL, signatures: Signatures) -> ctypes.CDLL:
    """Give a loaded library's functions their types; AttributeError where it is another library."""
    for name, (letters, result) in signatures.items():
        function = getattr(library, name)
        function.argtypes = [_LETTERS[letter] for letter in letters]
        function.restype = result
    return library


@dataclass(frozen=True)
class Search:
    """Where a compiled library may be, and how to make it where it is not."""

    what: str
    """"kernels" or the like, as it is written in file names."""
    target: str
    """The machine that it is compiled for, as it is written in the name of the file in the user's cache."""
    build_id: Callable[[Path], str]
    opened: Callable[[Path, str | None], ctypes.CDLL | None]
    """The library at a path if it loads, runs here and was built from the sources of that id."""
    compile: Callable[[Path, Path], None]
    """Builds the sources at the first path into the second."""
    compiler: Callable[[], str]
    remedy: str
    """What to install where there is no compiler."""

    def run(self) -> ctypes.CDLL | str:
        """The library, or why there is none.

        That of the installation is taken unless it is stale (its sources changed) or made for another machine; else
        one in the user's cache, which is compiled when it is missing.
        """
        root = _build.source_root()
        wanted = None if root is None else self.build_id(root)
        installed = self.opened(Path(__file__).parents[1] / f"_{self.what}.so", wanted)
        if installed is not None:
            return installed
        if root is None or wanted is None:
            return f"neither _{self.what}.so for this machine nor its sources are installed; reinstall gsth"
        cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gsth"
        path = cache_folder / f"{self.what}-{self.target}-{wanted}.so"
        try:
            if not path.is_file():
                self.compile(root, path)
        except OSError as error:
            return f"no compiled kernels, and compiling them failed ({error}); {self.remedy}"
        except subprocess.CalledProcessError as error:
            return f"no compiled kernels, and {self.compiler()} failed: {error.stderr.strip()[-500:]}"
        return self.opened(path, wanted) or f"{path} does not run here; delete it and try again"


def _opened(path: Path, wanted: str | None) -> ctypes.CDLL | None:
    try:
        library = with_signatures(ctypes.CDLL(str(path)), _SIGNATURES) if path.is_file() else None
    except (OSError, AttributeError):
        return None
    if library is None or (wanted is not None and library.gsth_build_id().decode() != wanted):
        return None
    return library


@cache
def find() -> ctypes.CDLL | str:
    """The kernels, or why there are none. Set GSTH_NO_NATIVE=1 to do without."""
    if _build.switched_off():
        return "switched off by GSTH_NO_NATIVE"
    here = platform.machine()
    make, compiler = _build.compile_cpu, _build.compiler
    return Search("kernels_cpu", here, _build.build_id, _opened, make, compiler, "install g++, or set CXX").run()


def kernels() -> ctypes.CDLL:
    """The kernels; raises BackendError with the reason where there are none."""
    library = find()
    if isinstance(library, str):
        raise BackendError(f"render backend native cannot run: {library}")
    return library
