"""Our compiled CPU kernels as torch operators: rasterizer, rig and L1 + SSIM loss, forward and backward.

Float32 on the CPU only. The thread count is torch's (``torch.set_num_threads``); results do not depend on it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gsth.errors import BackendError, InputError
from gsth.render import _library, _loss
from gsth.render._library import pointer
from gsth.types import Cameras, Mesh, Rendered, RiggedSplats, Splats

_PACK_FLOATS, _SLOT_FLOATS = 16, 12
_NOT_FINITE, _NO_MEMORY = 1, 4


def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot run on a device, or None."""
    if device.type != "cpu":
        return f"the compiled kernels run on the CPU, the tensors are on {device}"
    library = _library.find()
    return library if isinstance(library, str) else None


def instruction_set() -> str:
    """The one that the kernels use on this CPU: "avx512", "avx2" or "plain"."""
    return _library.kernels().gsth_isa().decode()


def set_instruction_set(name: str) -> None:
    """Use another one than the best (for tests and benchmarks); not between a forward pass and its backward."""
    if _library.kernels().gsth_set_isa(name.encode()):
        raise BackendError(_library.kernels().gsth_last_error().decode())


def render(splats: Splats, cameras: Cameras, background: Tensor, antialiased: bool = False) -> Rendered:
    """Draw splats as ``torch_ref`` defines it.

    Args:
        splats: Float32, on the CPU.
        cameras: The same; no gradient to Ks (use torch_ref for that).
        background: [3] or [h w 3].
        antialiased: As in ``torch_ref.render``.

    Raises:
        InputError: A tensor is of the wrong dtype or device or holds values that are not finite; it is named.
    """
    named = {
        "means": splats.means,
        "quats": splats.quats,
        "scales": splats.scales,
        "opacities": splats.opacities,
        "sh": splats.sh,
        "viewmats": cameras.viewmats,
        "Ks": cameras.Ks,
        "background": background,
    }
    require_float32(named)
    if cameras.Ks.requires_grad:
        raise InputError("Ks: the compiled kernels give no gradient to intrinsics; detach, or take backend torch_ref")
    for name in ("viewmats", "Ks", "background"):
        if not math.isfinite(float(named[name].detach().sum())):
            raise InputError(f"{name}: holds values that are not finite")
    grad_px = torch.zeros(len(cameras.Ks), len(splats.means))
    means, quats, scales, opacities, sh = list(named.values())[:5]
    record = torch.is_grad_enabled() and any(t.requires_grad for t in named.values())
    options = (cameras.width, cameras.height, antialiased, record)
    views = [
        _raster(means, quats, scales, opacities, sh, viewmat, K, background, grad_px[view], *options)[:5]
        for view, (viewmat, K) in enumerate(zip(cameras.viewmats, cameras.Ks, strict=True))
    ]
    rgb, alpha, depth, means2d, radii_px = (_stack(parts) for parts in zip(*views, strict=True))
    return Rendered(rgb=rgb, alpha=alpha, depth=depth, means2d=means2d, radii_px=radii_px, grad_px=grad_px)


def rig(splats: RiggedSplats, mesh: Mesh) -> Splats:
    """Carry splats from their triangles into the world as ``torch_ref.rig`` defines it."""
    means, quats, scales, opacities = _rig(
        mesh.verts[0],
        splats.means_tri,
        splats.quats_tri,
        splats.log_scales,
        splats.logit_opacities,
        splats.face_ids,
        mesh.faces,
    )
    return Splats(means=means, quats=quats, scales=scales, opacities=opacities, sh=splats.sh)


def l1_ssim_loss(image: Tensor, target: Tensor, weight_map: Tensor | None, ssim_weight: float) -> Tensor:
    """The loss that ``torch_ref.l1_ssim_loss`` defines; its gradient is made in the same pass."""
    loss, _ = _l1_ssim(image, target, weight_map, ssim_weight, torch.is_grad_enabled() and image.requires_grad)
    return loss


def can_take(*tensors: Tensor | None) -> bool:
    """Whether the kernels are there and the tensors are float32 on the CPU."""
    return all(t is None or (t.dtype == torch.float32 and t.device.type == "cpu") for t in tensors) and not isinstance(
        _library.find(), str
    )


def require_float32(named: dict[str, Tensor]) -> None:
    """Raises InputError naming the first tensor that is not float32 on the CPU."""
    for name, tensor in named.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise InputError(f"{name}: the compiled kernels want float32 on cpu, got {tensor.dtype} on {tensor.device}")


def _stack(parts: Sequence[Tensor]) -> Tensor:
    """Stacks without a copy where there is one."""
    return parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(tuple(parts))


def _check(code: int) -> None:
    if code == 0:
        return
    text = _library.kernels().gsth_last_error().decode()
    if code == _NO_MEMORY:
        raise MemoryError(f"rasterizer: {text}")
    raise InputError(f"{text}: holds values that are not finite" if code == _NOT_FINITE else text)


def _structs(splats: Sequence[Tensor], camera: Sequence[Any], lists: Sequence[Tensor | None]) -> tuple[Any, Any, Any]:
    """Pointers to the C structs of splats, camera (viewmat, K, width, height, antialiased) and lists."""
    means, sh = splats[0], splats[4]
    a = _library.SplatsC(means.shape[0], sh.shape[1], *map(pointer, splats))
    b = _library.CameraC(pointer(camera[0]), pointer(camera[1]), *camera[2:])
    c = _library.ListsC(*map(pointer, lists))
    return ctypes.byref(a), ctypes.byref(b), ctypes.byref(c)


@torch.library.custom_op("gsth::raster", mutates_args=())
def _raster(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    viewmat: Tensor,
    K: Tensor,
    background: Tensor,
    grad_px: Tensor,
    width: int,
    height: int,
    antialiased: bool,
    record: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """rgb, alpha, depth, means2d, radii_px of one camera, then the lists.

    Backward writes grad_px; it can only follow where ``record`` is set.
    """
    library, threads, n = _library.kernels(), torch.get_num_threads(), means.shape[0]
    splats = [t.contiguous() for t in (means, quats, scales, opacities, sh)]
    viewmat, K, background = viewmat.contiguous(), K.contiguous(), background.contiguous()
    packs, boxes = torch.empty(n, _PACK_FLOATS), torch.empty(n, 4, dtype=torch.int32)
    slots = torch.empty(n + 1, dtype=torch.int32)
    tile_firsts = torch.empty(library.gsth_tiles(width, height) + 1, dtype=torch.int32)
    means2d, radii_px = torch.empty(n, 2), torch.empty(n)
    camera = (viewmat, K, width, height, antialiased)
    a, b, c = _structs(splats, camera, (packs, boxes, slots))
    _check(library.gsth_project(a, b, c, pointer(means2d), pointer(radii_px), threads))
    pairs = int(slots[-1])
    entries, hits = torch.empty(pairs, 2, dtype=torch.int32), torch.empty(pairs if record else 0, dtype=torch.int64)
    rgb, alpha, depth = torch.empty(height, width, 3), torch.empty(height, width), torch.empty(height, width)
    lists = (packs, boxes, slots, tile_firsts, entries, hits)
    a, b, c = _structs(splats, camera, lists if record else (*lists[:-1], None))
    stride = 0 if background.dim() == 1 else 3
    images = (pointer(rgb), pointer(alpha), pointer(depth))
    _check(library.gsth_blend(n, b, c, pointer(background), stride, *images, threads))
    return rgb, alpha, depth, means2d, radii_px, *lists


@_raster.register_fake
def _(means, quats, scales, opacities, sh, viewmat, K, background, grad_px, width, height, antialiased, record):  # type: ignore[no-untyped-def]
    n = means.shape[0]
    pairs = torch.library.get_ctx().new_dynamic_size()
    tiles = torch.library.get_ctx().new_dynamic_size()
    f, i = means.new_empty, torch.int32
    return (
        f(height, width, 3), f(height, width), f(height, width), f(n, 2), f(n), f(n, _PACK_FLOATS), f(n, 4, dtype=i),
        f(n + 1, dtype=i), f(tiles, dtype=i), f(pairs, 2, dtype=i), f(pairs if record else 0, dtype=torch.int64),
    )  # fmt: skip


@torch.library.custom_op("gsth::raster_backward", mutates_args=())
def _raster_backward(
    splats: list[Tensor],
    viewmat: Tensor,
    K: Tensor,
    antialiased: bool,
    images: list[Tensor],
    lists: list[Tensor],
    v_rgb: Tensor,
    v_alpha: Tensor | None,
    v_depth: Tensor | None,
    v_means2d: Tensor | None,
) -> list[Tensor]:
    """Gradients of means, quats, scales, opacities, sh and viewmat, and the norm of that of means2d."""
    height, width = images[1].shape
    splats = [t.contiguous() for t in splats]
    viewmat, K = viewmat.contiguous(), K.contiguous()
    incoming = [None if g is None else g.contiguous() for g in (v_rgb, v_alpha, v_depth, v_means2d)]
    out = [torch.empty_like(t) for t in (*splats, viewmat)]
    out.append(torch.empty(splats[0].shape[0]))
    slot_grads = torch.empty(len(lists[-1]), _SLOT_FLOATS)
    a, b, c = _structs(splats, (viewmat, K, width, height, antialiased), lists)
    image = _library.ImageGradsC(*map(pointer, images), *map(pointer, incoming))
    grads = _library.SplatGradsC(*map(pointer, out))
    threads = torch.get_num_threads()
    backward = _library.kernels().gsth_backward
    _check(backward(a, b, c, ctypes.byref(image), pointer(slot_grads), ctypes.byref(grads), threads))
    return out


@_raster_backward.register_fake
def _(splats, viewmat, K, antialiased, images, lists, v_rgb, v_alpha, v_depth, v_means2d):  # type: ignore[no-untyped-def]
    return [torch.empty_like(t) for t in (*splats, viewmat)] + [splats[0].new_empty(splats[0].shape[0])]


def _raster_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rgb, alpha, depth, _, radii_px, *lists = output
    ctx.mark_non_differentiable(radii_px, *lists)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:7], rgb, alpha, depth, *lists)
    ctx.grad_px, ctx.background_dim, ctx.antialiased = inputs[8], inputs[7].dim(), inputs[11]


def _raster_autograd(ctx: Any, v_rgb: Any, v_alpha: Any, v_depth: Any, v_means2d: Any, *_: Any) -> tuple[Any, ...]:
    saved = list(ctx.saved_tensors)
    splats, viewmat, K, images, lists = saved[:5], saved[5], saved[6], saved[7:10], saved[10:]
    if v_rgb is None:
        v_rgb = torch.zeros_like(images[0])
    incoming = (v_rgb, v_alpha, v_depth, v_means2d)
    *grads, grad_px = _raster_backward(splats, viewmat, K, ctx.antialiased, images, lists, *incoming)
    ctx.grad_px.copy_(grad_px)
    v_background = None
    if ctx.needs_input_grad[7]:
        v_background = (1 - images[1])[..., None] * v_rgb
        if ctx.background_dim == 1:
            v_background = v_background.sum((0, 1))
    return (*grads, None, v_background, *[None] * 5)


_raster.register_autograd(_raster_autograd, setup_context=_raster_context)


def _rigged(verts: Tensor, params: Sequence[Tensor], face_ids: Tensor, faces: Tensor) -> Any:
    sizes = (len(face_ids), len(faces), len(verts))
    return ctypes.byref(_library.RiggedC(*sizes, *map(pointer, (face_ids, faces, verts, *params))))


@torch.library.custom_op("gsth::rig", mutates_args=())
def _rig(
    verts: Tensor,
    means_tri: Tensor,
    quats_tri: Tensor,
    log_scales: Tensor,
    logit_opacities: Tensor,
    face_ids: Tensor,
    faces: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """means, quats, scales, opacities."""
    params = [t.contiguous() for t in (means_tri, quats_tri, log_scales, logit_opacities)]
    verts, face_ids, faces = verts.contiguous(), face_ids.contiguous().long(), faces.contiguous().long()
    means, quats, scales, opacities = (torch.empty_like(t) for t in params)
    out = (pointer(means), pointer(quats), pointer(scales), pointer(opacities))
    _check(_library.kernels().gsth_rig(_rigged(verts, params, face_ids, faces), *out, torch.get_num_threads()))
    return means, quats, scales, opacities


@_rig.register_fake
def _(verts, means_tri, quats_tri, log_scales, logit_opacities, face_ids, faces):  # type: ignore[no-untyped-def]
    return tuple(t.new_empty(t.shape) for t in (means_tri, quats_tri, log_scales, logit_opacities))


@torch.library.custom_op("gsth::rig_backward", mutates_args=())
def _rig_backward(
    verts: Tensor, params: list[Tensor], face_ids: Tensor, faces: Tensor, v_out: list[Tensor]
) -> list[Tensor]:
    """Gradients of verts, means_tri, quats_tri, log_scales, logit_opacities."""
    params, v_out = [t.contiguous() for t in params], [t.contiguous() for t in v_out]
    verts, face_ids, faces = verts.contiguous(), face_ids.contiguous().long(), faces.contiguous().long()
    out = [torch.empty_like(t) for t in (verts, *params)]
    grads = ctypes.byref(_library.RigGradsC(*map(pointer, v_out), *map(pointer, out)))
    rigged = _rigged(verts, params, face_ids, faces)
    _check(_library.kernels().gsth_rig_backward(rigged, grads, torch.get_num_threads()))
    return out


@_rig_backward.register_fake
def _(verts, params, face_ids, faces, v_out):  # type: ignore[no-untyped-def]
    return [t.new_empty(t.shape) for t in (verts, *params)]


def _rig_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs)


def _rig_autograd(ctx: Any, *v_out: Tensor) -> tuple[Any, ...]:
    verts, *params, face_ids, faces = ctx.saved_tensors
    return (*_rig_backward(verts, params, face_ids, faces, list(v_out)), None, None)


_rig.register_autograd(_rig_autograd, setup_context=_rig_context)


@torch.library.custom_op("gsth::l1_ssim", mutates_args=())
def _l1_ssim(
    image: Tensor, target: Tensor, weight_map: Tensor | None, ssim_weight: float, want_gradient: bool
) -> tuple[Tensor, Tensor]:
    """The loss and, where wanted, its gradient with respect to the image."""
    image, target = image.contiguous(), target.contiguous()
    weights = None if weight_map is None else weight_map.contiguous()
    loss, v_image = torch.empty(()), torch.empty_like(image) if want_gradient else image.new_empty(0)
    inputs = (pointer(image), pointer(target), pointer(weights), ssim_weight)
    outputs = (pointer(loss), pointer(v_image) if want_gradient else None)
    _check(_library.kernels().gsth_l1_ssim(*image.shape[:2], *inputs, *outputs, torch.get_num_threads()))
    return loss, v_image


_loss.register(_l1_ssim)
