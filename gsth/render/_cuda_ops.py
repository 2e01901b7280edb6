"""The CUDA kernels as torch operators; see cuda.py. Nothing here looks at the device: that is the caller's to check."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gsth.errors import BackendError, InputError
from gsth.render import _cuda_library, _loss
from gsth.render._library import pointer

ARRAYS = ("means", "quats", "scales", "opacities", "sh", "viewmats", "Ks", "background")
"""In the order of the bits in which the kernels report what is not finite."""
_PACK_FLOATS, _SPAN_INTS, _SLOT_FLOATS, _TILE_PX, _BLOCK = 12, 4, 12, 16, 128
FIRST_PAIRS, HEADROOM, SPARE, MOST_PAIRS = 4.0, 1.3, 1024, 2**31 - 1
pairs_per_splat: dict[tuple[int, int], float] = {}
"""Most (tile, splat) pairs per splat and view met so far, per image size: buffers are made for that and some more."""


class Room(NamedTuple):
    """What a captured rasterization says about itself after each replay."""

    status: Tensor
    """int64 [2] on the GPU: pairs that were wanted, and bits of the inputs that were not finite."""
    capacity: int
    """Pairs that fit."""

    def fits(self) -> bool:
        """Wait for the GPU; False where the picture is NaN because its pairs did not fit.

        Raises:
            InputError: A tensor was not finite; it is named.
        """
        pairs, bad = self.status.tolist()
        _raise_bad(bad)
        return pairs <= self.capacity


recordings: list[list[Room]] = []


def _raise_bad(bits: int) -> None:
    if bits:
        first = (bits & -bits).bit_length() - 1
        raise InputError(f"{ARRAYS[first]}: holds values that are not finite")


def _check(code: int) -> None:
    if code:
        raise BackendError(f"CUDA kernels: {_cuda_library.kernels().gsth_cuda_last_error().decode()}")


def _stream(tensor: Tensor) -> int | None:
    return torch.cuda.current_stream(tensor.device).cuda_stream if tensor.is_cuda else None


def _later(status: Tensor) -> Callable[[], list[int]]:
    """Starts to read; the result waits for what was launched before now, not for what comes after."""
    if not status.is_cuda:
        return status.tolist
    host, event = torch.empty_like(status, device="cpu", pin_memory=True), torch.cuda.Event()
    host.copy_(status, non_blocking=True)
    event.record()

    def result() -> list[int]:
        event.synchronize()
        return host.tolist()

    return result


def _scene(splats: Sequence[Tensor], camera: Sequence[Tensor], image: tuple[int, int, bool]) -> Any:
    """Pointer to the C struct of means, quats, scales, opacities, sh, of viewmats, Ks, background, and of
    the image's width, height and whether it is antialiased."""
    means, opacities, sh, background = splats[0], splats[3], splats[4], camera[2]
    sizes = (opacities.shape[0], camera[0].shape[0], 1 if means.dim() == 2 else means.shape[0], sh.shape[1])
    stride = 0 if background.dim() == 1 else 3
    return ctypes.byref(
        _cuda_library.SceneC(*sizes, *map(pointer, (*splats, *camera)), stride, *image),
    )


def _lists(lists: Sequence[Tensor]) -> Any:
    return ctypes.byref(_cuda_library.ListsC(*map(pointer, lists), lists[4].shape[0]))


@torch.library.custom_op("gsth::cuda_raster", mutates_args=())
def raster(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    sh: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    background: Tensor,
    grad_px: Tensor,
    width: int,
    height: int,
    antialiased: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """rgb, alpha, depth, means2d, radii_px of all views, then the lists; backward writes grad_px."""
    library, views, n = _cuda_library.kernels(), viewmats.shape[0], opacities.shape[0]
    splats = [t.contiguous() for t in (means, quats, scales, opacities, sh)]
    camera = [t.contiguous() for t in (viewmats, Ks, background)]
    new, device = means.new_empty, means.device
    ints = partial(torch.empty, dtype=torch.int32, device=device)
    tiles = views * -(-width // _TILE_PX) * -(-height // _TILE_PX)
    images = new(views, height, width, 3), new(views, height, width), new(views, height, width)
    means2d, radii_px = new(views, n, 2), new(views, n)
    packs, spans, status = new(views, n, _PACK_FLOATS), ints(views, n, _SPAN_INTS), ints(2, dtype=torch.int64)
    cursors, firsts = ints(tiles), ints(tiles + 1)
    scene, size = _scene(splats, camera, (width, height, antialiased)), (width, height)
    capacity = min(int(pairs_per_splat.get(size, FIRST_PAIRS) * HEADROOM * views * n) + SPARE, MOST_PAIRS)
    with torch.cuda.device_of(means):
        while True:
            keys = ints(capacity, dtype=torch.int64)
            lists = _lists((packs, spans, cursors, firsts, keys, status))
            _check(library.gsth_cuda_project(scene, lists, pointer(means2d), pointer(radii_px), _stream(means)))
            read = None if recordings else _later(status)
            out = ctypes.byref(_cuda_library.ImagesC(*map(pointer, images)))
            _check(library.gsth_cuda_blend(scene, lists, out, _stream(means)))
            if read is None:
                recordings[-1].append(Room(status, capacity))
                break
            pairs, bad = read()
            _raise_bad(bad)
            if pairs > MOST_PAIRS:
                raise InputError(f"scales: {pairs} (tile, splat) pairs, at most 2^31 can be drawn; are they in metres?")
            pairs_per_splat[size] = max(pairs_per_splat.get(size, 0.0), pairs / max(views * n, 1))
            if pairs <= capacity:
                keys = keys[:pairs]
                break
            capacity = pairs
    return *images, means2d, radii_px, packs, spans, cursors, firsts, keys, status


@raster.register_fake
def _(means, quats, scales, opacities, sh, viewmats, Ks, background, grad_px, width, height, antialiased):  # type: ignore[no-untyped-def]
    views, n = viewmats.shape[0], opacities.shape[0]
    pairs = torch.library.get_ctx().new_dynamic_size()
    tiles = views * ((width + _TILE_PX - 1) // _TILE_PX) * ((height + _TILE_PX - 1) // _TILE_PX)
    f, i = means.new_empty, torch.int32
    return (
        f(views, height, width, 3), f(views, height, width), f(views, height, width), f(views, n, 2), f(views, n),
        f(views, n, _PACK_FLOATS), f(views, n, _SPAN_INTS, dtype=i), f(tiles, dtype=i), f(tiles + 1, dtype=i),
        f(pairs, dtype=torch.int64), f(2, dtype=torch.int64),
    )  # fmt: skip


@torch.library.custom_op("gsth::cuda_raster_backward", mutates_args=())
def _raster_backward(
    splats: list[Tensor],
    camera: list[Tensor],
    images: list[Tensor],
    lists: list[Tensor],
    v_rgb: Tensor,
    v_alpha: Tensor | None,
    v_depth: Tensor | None,
    v_means2d: Tensor | None,
    antialiased: bool,
    want_viewmats: bool,
) -> list[Tensor]:
    """Gradients of means, quats, scales, opacities, sh, the norm of that of means2d and, where wanted, of viewmats."""
    views, height, width = images[1].shape
    n = splats[3].shape[0]
    splats, camera = [t.contiguous() for t in splats], [t.contiguous() for t in camera]
    incoming = [None if g is None else g.contiguous() for g in (v_rgb, v_alpha, v_depth, v_means2d)]
    out = [torch.empty_like(t) for t in splats]
    new = v_rgb.new_empty
    grad_px, slots = new(views, n), new(lists[4].shape[0], _SLOT_FLOATS)
    viewmats = torch.empty_like(camera[0]) if want_viewmats else None
    partials = new(views, -(-n // _BLOCK), 12) if want_viewmats else None
    image = _cuda_library.ImageGradsC(*map(pointer, (*images, *incoming, slots, partials)))
    grads = _cuda_library.SplatGradsC(*map(pointer, (*out, viewmats, grad_px)))
    scene = _scene(splats, camera, (width, height, antialiased))
    with torch.cuda.device_of(v_rgb):
        backward = _cuda_library.kernels().gsth_cuda_backward
        _check(backward(scene, _lists(lists), ctypes.byref(image), ctypes.byref(grads), _stream(v_rgb)))
    return [*out, grad_px] if viewmats is None else [*out, grad_px, viewmats]


@_raster_backward.register_fake
def _(splats, camera, images, lists, v_rgb, v_alpha, v_depth, v_means2d, antialiased, want_viewmats):  # type: ignore[no-untyped-def]
    out = [torch.empty_like(t) for t in splats] + [v_rgb.new_empty(camera[0].shape[0], splats[3].shape[0])]
    return [*out, torch.empty_like(camera[0])] if want_viewmats else out


def _raster_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    rgb, alpha, depth, _, radii_px, *lists = output
    ctx.mark_non_differentiable(radii_px, *lists)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:8], rgb, alpha, depth, *lists)
    ctx.grad_px, ctx.antialiased = inputs[8], inputs[11]


def _raster_autograd(ctx: Any, v_rgb: Any, v_alpha: Any, v_depth: Any, v_means2d: Any, *_: Any) -> tuple[Any, ...]:
    saved = list(ctx.saved_tensors)
    splats, camera, images, lists = saved[:5], saved[5:8], saved[8:11], saved[11:]
    if v_rgb is None:
        v_rgb = torch.zeros_like(images[0])
    want_viewmats = ctx.needs_input_grad[5]
    incoming = (v_rgb, v_alpha, v_depth, v_means2d)
    out = _raster_backward(splats, camera, images, lists, *incoming, ctx.antialiased, want_viewmats)
    ctx.grad_px.copy_(out[5])
    v_background = None
    if ctx.needs_input_grad[7]:
        v_background = ((1 - images[1])[..., None] * v_rgb).sum((0, 1, 2) if camera[2].dim() == 1 else 0)
    return (*out[:5], out[6] if want_viewmats else None, None, v_background, None, None, None, None)


raster.register_autograd(_raster_autograd, setup_context=_raster_context)


def _rigged(verts: Tensor, params: Sequence[Tensor], face_ids: Tensor, faces: Tensor) -> Any:
    sizes = (len(face_ids), len(faces), verts.shape[1], verts.shape[0])
    return ctypes.byref(_cuda_library.RiggedC(*sizes, *map(pointer, (face_ids, faces, verts, *params))))


@torch.library.custom_op("gsth::cuda_rig", mutates_args=())
def rig(
    verts: Tensor,
    means_tri: Tensor,
    quats_tri: Tensor,
    log_scales: Tensor,
    logit_opacities: Tensor,
    face_ids: Tensor,
    faces: Tensor,
    owners: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """means, quats, scales of every frame, and opacities."""
    params = [t.contiguous() for t in (means_tri, quats_tri, log_scales, logit_opacities)]
    verts, face_ids, faces = verts.contiguous(), face_ids.contiguous().long(), faces.contiguous().long()
    carried = [verts.new_empty(len(verts), *t.shape) for t in params[:3]]
    opacities = torch.empty_like(params[3])
    rigged = _rigged(verts, params, face_ids, faces)
    with torch.cuda.device_of(verts):
        _check(_cuda_library.kernels().gsth_cuda_rig(rigged, *map(pointer, (*carried, opacities)), _stream(verts)))
    return carried[0], carried[1], carried[2], opacities


@rig.register_fake
def _(verts, means_tri, quats_tri, log_scales, logit_opacities, face_ids, faces, owners):  # type: ignore[no-untyped-def]
    t = verts.shape[0]
    carried = [verts.new_empty(t, *p.shape) for p in (means_tri, quats_tri, log_scales)]
    return *carried, torch.empty_like(logit_opacities)


@torch.library.custom_op("gsth::cuda_rig_backward", mutates_args=())
def _rig_backward(
    verts: Tensor,
    params: list[Tensor],
    face_ids: Tensor,
    faces: Tensor,
    owners: list[Tensor],
    v_out: list[Tensor],
    want_verts: bool,
) -> list[Tensor]:
    """Gradients of means_tri, quats_tri, log_scales, logit_opacities and, where wanted, of verts."""
    params, v_out = [t.contiguous() for t in params], [t.contiguous() for t in v_out]
    verts, face_ids, faces = verts.contiguous(), face_ids.contiguous().long(), faces.contiguous().long()
    out, frames = [torch.empty_like(t) for t in params], verts.shape[0]
    v_verts = torch.empty_like(verts) if want_verts else None
    scratch = [verts.new_empty(frames, len(face_ids), 8), verts.new_empty(frames, len(faces), 9)] if want_verts else []
    grads = _cuda_library.RigGradsC(*map(pointer, (*v_out, v_verts, *out, *scratch)))
    who, rigged = _cuda_library.RigOwnersC(*map(pointer, owners)), _rigged(verts, params, face_ids, faces)
    with torch.cuda.device_of(verts):
        backward = _cuda_library.kernels().gsth_cuda_rig_backward
        _check(backward(rigged, ctypes.byref(who), ctypes.byref(grads), _stream(verts)))
    return out if v_verts is None else [*out, v_verts]


@_rig_backward.register_fake
def _(verts, params, face_ids, faces, owners, v_out, want_verts):  # type: ignore[no-untyped-def]
    return [torch.empty_like(t) for t in ((*params, verts) if want_verts else params)]


def _rig_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:7], *inputs[7])


def _rig_autograd(ctx: Any, *v_out: Tensor) -> tuple[Any, ...]:
    verts, *params, face_ids, faces = ctx.saved_tensors[:7]
    want_verts = ctx.needs_input_grad[0]
    owners = list(ctx.saved_tensors[7:])
    out = _rig_backward(verts, params, face_ids, faces, owners, list(v_out), want_verts)
    return (out[4] if want_verts else None, *out[:4], None, None, [None] * len(owners))


rig.register_autograd(_rig_autograd, setup_context=_rig_context)


@torch.library.custom_op("gsth::cuda_l1_ssim", mutates_args=())
def l1_ssim(
    image: Tensor, target: Tensor, weight_map: Tensor | None, ssim_weight: float, want_gradient: bool
) -> tuple[Tensor, Tensor]:
    """The loss and, where wanted, its gradient with respect to the image."""
    image, target = image.contiguous(), target.contiguous()
    weights = None if weight_map is None else weight_map.contiguous()
    height, width = image.shape[:2]
    library, new = _cuda_library.kernels(), image.new_empty
    loss, v_image = new(()), torch.empty_like(image) if want_gradient else new(0)
    derivatives = new(9, height, width) if want_gradient else None
    sums = new(3 * library.gsth_cuda_l1_ssim_blocks(height, width) + 1, dtype=torch.float64)
    outputs = (loss, v_image if want_gradient else None, derivatives, sums)
    pointers = map(pointer, (image, target, weights, *outputs))
    with torch.cuda.device_of(image):
        job = _cuda_library.LossC(height, width, ssim_weight, *pointers)
        _check(library.gsth_cuda_l1_ssim(ctypes.byref(job), _stream(image)))
    return loss, v_image


_loss.register(l1_ssim)
