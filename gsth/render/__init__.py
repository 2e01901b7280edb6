"""Rendering: Splats and Cameras in, Rendered out.

A backend is a module in this room with ``unavailable(device) -> str | None`` (why it cannot run there) and
``render(splats, cameras, background, antialiased) -> Rendered``; all must agree with ``torch_ref``, the definition.
"""

from __future__ import annotations

import logging
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from gsth.errors import BackendError, InputError
from gsth.render import cuda, gsplat, native, torch_ref
from gsth.render.torch_ref import triangle_frames
from gsth.types import Cameras, Mesh, Rendered, RiggedSplats, Splats

__all__ = ["backends", "l1_ssim_loss", "render", "rig", "triangle_frames"]

_BACKENDS: dict[str, ModuleType] = {"native": native, "gsplat": gsplat, "torch_ref": torch_ref}
"""In the order in which "auto" tries them."""
_log = logging.getLogger(__name__)


def _module(name: str, device: torch.device) -> ModuleType:
    """The compiled kernels are one backend with one module per kind of device."""
    return cuda if name == "native" and device.type == "cuda" else _BACKENDS[name]


def render(
    splats: Splats, cameras: Cameras, *, background: Tensor, backend: str = "auto", antialiased: bool = False
) -> Rendered:
    """Draw splats, differentiable in all of them, the background and the cameras' viewmats.

    Args:
        splats: n splats, world frame.
        cameras: c cameras.
        background: Colour behind everything, [3] or [h w 3].
        backend: One of ``backends()``, or "auto" for the fastest that can take these tensors.
        antialiased: Splats smaller than a pixel fade instead of growing to its size (Yu et al. 2024). What was trained
            one way looks right only that way.

    Returns:
        rgb [c h w 3] over the background (not clamped), alpha, expected depth, projected centres and radii;
        ``grad_px`` is filled by backward.

    Raises:
        InputError: A tensor has the wrong shape, dtype or device or is not finite; the message names it.
        BackendError: The backend asked for cannot run here; the message says why.
    """
    _check(splats, cameras, background)
    rendered: Rendered = _choose(backend, splats).render(splats, cameras, background, antialiased)
    return rendered


def rig(splats: RiggedSplats, mesh: Mesh) -> Splats:
    """Carry splats from their triangles into the world, differentiable in vertices and parameters.

    Args:
        splats: n splats in the frames of ``triangle_frames``.
        mesh: One frame.

    Raises:
        InputError: The mesh has another number of frames than one, or a splat's triangle does not exist.
    """
    if len(mesh.verts) != 1:
        raise InputError(f"rig: want a mesh of 1 frame, got {len(mesh.verts)}; pose one frame at a time")
    tensors = (splats.means_tri, splats.quats_tri, splats.log_scales, splats.logit_opacities)
    compiled = _module("native", mesh.verts.device)
    implementation = compiled if compiled.can_take(mesh.verts, *tensors) else torch_ref
    carried: Splats = implementation.rig(splats, mesh)
    return carried


def l1_ssim_loss(image: Tensor, target: Tensor, weight_map: Tensor | None = None, ssim_weight: float = 0.2) -> Tensor:
    """Weighted mean of (1 - s) |image - target| + s (1 - SSIM), s = ssim_weight; differentiable in the image only.

    Args:
        image: [h w 3], 0 to 1.
        target: [h w 3], constant.
        weight_map: [h w], not negative, constant; None: all ones. The mean divides by its sum.
        ssim_weight: 0 to 1; 0.2 in Kerbl et al. 2023.

    Returns:
        A scalar. Source of SSIM: Wang et al. 2004, 11 x 11 gaussian window of sigma 1.5 px, zeros beyond the border.
    """
    if image.dim() != 3 or image.shape[-1] != 3 or image.shape != target.shape:
        raise InputError(
            f"l1_ssim_loss: want image and target of one shape [h, w, 3], got {list(image.shape)}, {list(target.shape)}"
        )
    if weight_map is not None and weight_map.shape != image.shape[:2]:
        raise InputError(f"l1_ssim_loss: want weight_map {list(image.shape[:2])}, got {list(weight_map.shape)}")
    compiled = _module("native", image.device)
    implementation = compiled if compiled.can_take(image, target, weight_map) else torch_ref
    loss: Tensor = implementation.l1_ssim_loss(
        image, target.detach(), None if weight_map is None else weight_map.detach(), ssim_weight
    )
    return loss


def backends(device: torch.device | str = "cpu") -> dict[str, str | None]:
    """Every backend with the reason why it cannot run for tensors on ``device``, or None where it can."""
    where = torch.device(device)
    return {name: _module(name, where).unavailable(where) for name in _BACKENDS}


def _choose(backend: str, splats: Splats) -> ModuleType:
    device = splats.means.device
    if backend == "auto":
        # The kernels are float32; other precisions are for checking against the definition.
        names = list(_BACKENDS) if splats.means.dtype == torch.float32 else ["torch_ref"]
        name = next(name for name in names if _module(name, device).unavailable(device) is None)
        _announce(name, str(device))
        return _module(name, device)
    if backend not in _BACKENDS:
        raise BackendError(f"no render backend is called {backend!r}; there are: auto, {', '.join(_BACKENDS)}")
    reason = _module(backend, device).unavailable(device)
    if reason is not None:
        raise BackendError(f"render backend {backend} cannot run: {reason}")
    return _module(backend, device)


@cache
def _announce(name: str, device: str) -> None:
    reasons = [f"{other}: {reason}" for other, reason in backends(device).items() if reason is not None]
    _log.info("rendering on %s with %s%s", device, name, f" (not {'; '.join(reasons)})" if reasons else "")


def _check(splats: Splats, cameras: Cameras, background: Tensor) -> None:
    """What all backends rely on; whether values are finite is theirs to check."""
    if splats.sh.shape[1] not in (1, 4, 9, 16):
        raise InputError(f"sh: want 1, 4, 9 or 16 bases (degree 0 to 3), got {splats.sh.shape[1]}")
    if cameras.width < 1 or cameras.height < 1 or len(cameras.Ks) < 1:
        found = f"{len(cameras.Ks)} of {cameras.width} x {cameras.height} px"
        raise InputError(f"cameras: want at least 1 of 1 x 1 px, got {found}")
    if tuple(background.shape) not in ((3,), (cameras.height, cameras.width, 3)):
        raise InputError(
            f"background: want [3] or [{cameras.height}, {cameras.width}, 3], got {list(background.shape)}"
        )
    named = {"viewmats": cameras.viewmats, "Ks": cameras.Ks, "background": background}
    for name in ("means", "quats", "scales", "opacities", "sh"):
        named[name] = getattr(splats, name)
    for name, tensor in named.items():
        if tensor.device != splats.means.device or tensor.dtype != splats.means.dtype:
            raise InputError(
                f"{name}: is {tensor.dtype} on {tensor.device}, means are {splats.means.dtype} on {splats.means.device}"
            )
