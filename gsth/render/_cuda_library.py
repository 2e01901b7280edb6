"""Finds, loads or builds the CUDA kernels, and mirrors the structs of cuda_ext/include/gsth_cuda.h for ctypes."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path

import torch

from gsth.errors import BackendError
from gsth.render import _build
from gsth.render._library import _LETTERS, _cache_folder, _struct

SceneC = _struct(
    "SceneC",
    "n:i32 views:i32 sets:i32 bases:i32 means quats scales opacities sh viewmats Ks background "
    "background_stride:i32 width:i32 height:i32 antialiased:i32",
)
ListsC = _struct("CudaListsC", "packs spans cursors tile_firsts keys status capacity:i32")
ImagesC = _struct("ImagesC", "rgb alpha depth")
ImageGradsC = _struct("CudaImageGradsC", "rgb alpha depth v_rgb v_alpha v_depth v_means2d slots partials")
SplatGradsC = _struct("CudaSplatGradsC", "means quats scales opacities sh viewmats grad_px")
RiggedC = _struct(
    "CudaRiggedC",
    "n:i32 faces_count:i32 verts_count:i32 frames:i32 face_ids faces verts "
    "means_tri quats_tri log_scales logit_opacities",
)
RigOwnersC = _struct("RigOwnersC", "face_firsts face_members vert_firsts vert_members")
RigGradsC = _struct(
    "CudaRigGradsC",
    "v_means v_quats v_scales v_opacities verts means_tri quats_tri log_scales logit_opacities splat_sums corner_sums",
)
LossC = _struct("LossC", "height:i32 width:i32 ssim_weight:f32 image target weights loss v_image derivatives sums")

_SIGNATURES = {
    "gsth_cuda_build_id": ("", ctypes.c_char_p),
    "gsth_cuda_last_error": ("", ctypes.c_char_p),
    "gsth_cuda_can_run": ("", ctypes.c_int),
    "gsth_cuda_project": ("ppppp", ctypes.c_int),
    "gsth_cuda_blend": ("pppp", ctypes.c_int),
    "gsth_cuda_backward": ("ppppp", ctypes.c_int),
    "gsth_cuda_rig": ("pppppp", ctypes.c_int),
    "gsth_cuda_rig_backward": ("pppp", ctypes.c_int),
    "gsth_cuda_l1_ssim_blocks": ("ii", ctypes.c_int32),
    "gsth_cuda_l1_ssim": ("pp", ctypes.c_int),
}


def with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    """Give a loaded library's functions their types; AttributeError where it is another library."""
    for name, (letters, result) in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = [_LETTERS[letter] for letter in letters]
        function.restype = result
    return library


def _opened(path: Path, wanted: str | None) -> ctypes.CDLL | None:
    """The library at ``path`` if it loads, was built from the sources at hand and runs on the current GPU."""
    try:
        library = with_signatures(ctypes.CDLL(str(path))) if path.is_file() else None
    except (OSError, AttributeError):
        return None
    if library is None or (wanted is not None and library.gsth_cuda_build_id().decode() != wanted):
        return None
    return library if library.gsth_cuda_can_run() == 0 else None


@cache
def find() -> ctypes.CDLL | str:
    """The CUDA kernels for the current GPU, or why there are none.

    The library of the installation is taken unless it is stale or was built for other GPUs; else one in the user's
    cache, which is compiled with nvcc when it is missing. GSTH_NO_NATIVE=1 does without.
    """
    if _build.switched_off():
        return "switched off by GSTH_NO_NATIVE"
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    root = _build.source_root()
    wanted = None if root is None else _build.cuda_build_id(root)
    installed = _opened(Path(__file__).parents[1] / "_kernels_cuda.so", wanted)
    if installed is not None:
        return installed
    if root is None or wanted is None:
        return "neither CUDA kernels for this GPU nor their sources are installed; reinstall gsth"
    major, minor = torch.cuda.get_device_capability()
    path = _cache_folder() / f"kernels_cuda-{major}{minor}-{wanted}.so"
    try:
        if not path.is_file():
            _build.compile_cuda(root, path, [f"{major}{minor}"])
    except OSError as error:
        return f"no CUDA kernels, and compiling them failed ({error}); install the CUDA toolkit, or set NVCC"
    except subprocess.CalledProcessError as error:
        return f"no CUDA kernels, and {_build.nvcc()} failed: {error.stderr.strip()[-500:]}"
    return _opened(path, wanted) or f"{path} does not run on this GPU; delete it and try again"


def kernels() -> ctypes.CDLL:
    """The kernels; raises BackendError with the reason where there are none."""
    library = find()
    if isinstance(library, str):
        raise BackendError(f"render backend native cannot run on a GPU: {library}")
    return library
