"""Finds, loads or builds the CUDA kernels, and mirrors the structs of cuda_ext/include/gsth_cuda.h for ctypes."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from gsth.errors import BackendError
from gsth.render import _build
from gsth.render._library import Search, Signatures, struct, with_signatures

SceneC = struct(
    "SceneC",
    "n:i32 views:i32 sets:i32 bases:i32 means quats scales opacities sh viewmats Ks background "
    "background_stride:i32 width:i32 height:i32 antialiased:i32",
)
ListsC = struct("CudaListsC", "packs spans cursors tile_firsts keys status capacity:i32")
ImagesC = struct("ImagesC", "rgb alpha depth")
ImageGradsC = struct("CudaImageGradsC", "rgb alpha depth v_rgb v_alpha v_depth v_means2d slots partials")
SplatGradsC = struct("CudaSplatGradsC", "means quats scales opacities sh viewmats grad_px")
RiggedC = struct(
    "CudaRiggedC",
    "n:i32 faces_count:i32 verts_count:i32 frames:i32 face_ids faces verts "
    "means_tri quats_tri log_scales logit_opacities",
)
RigOwnersC = struct("RigOwnersC", "face_firsts face_members vert_firsts vert_members")
RigGradsC = struct(
    "CudaRigGradsC",
    "v_means v_quats v_scales v_opacities verts means_tri quats_tri log_scales logit_opacities splat_sums corner_sums",
)
LossC = struct("LossC", "height:i32 width:i32 ssim_weight:f32 image target weights loss v_image derivatives sums")

SIGNATURES: Signatures = {
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


def _opened(path: Path, wanted: str | None) -> ctypes.CDLL | None:
    try:
        library = with_signatures(ctypes.CDLL(str(path)), SIGNATURES) if path.is_file() else None
    except (OSError, AttributeError):
        return None
    if library is None or (wanted is not None and library.gsth_cuda_build_id().decode() != wanted):
        return None
    return library if library.gsth_cuda_can_run() == 0 else None


@cache
def find() -> ctypes.CDLL | str:
    """The CUDA kernels for the current GPU, or why there are none. GSTH_NO_NATIVE=1 does without."""
    if _build.switched_off():
        return "switched off by GSTH_NO_NATIVE"
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    gpu = "".join(map(str, torch.cuda.get_device_capability()))

    def make(root: Path, path: Path) -> None:
        _build.compile_cuda(root, path, [gpu])

    remedy = "install the CUDA toolkit, or set NVCC"
    return Search("kernels_cuda", gpu, _build.cuda_build_id, _opened, make, _build.nvcc, remedy).run()


def kernels() -> ctypes.CDLL:
    """The kernels; raises BackendError with the reason where there are none."""
    library = find()
    if isinstance(library, str):
        raise BackendError(f"render backend native cannot run on a GPU: {library}")
    return library
