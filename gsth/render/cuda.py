"""Our compiled CUDA kernels as torch operators: rasterizer, rig and L1 + SSIM loss, forward and backward.

Float32 on an NVIDIA GPU. All views, or all frames of a moving mesh, are drawn by one launch of each kernel. Results and
gradients are the same bits at every run. Nothing on the way waits for the GPU but one read of 16 bytes (how many
(tile, splat) pairs there are), which overlaps with the drawing; ``Graphed`` does without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from gsth.errors import InputError
from gsth.render import _cuda_library, _cuda_ops
from gsth.render._cuda_ops import ARRAYS, Room
from gsth.types import Cameras, Mesh, Rendered, RiggedSplats, Splats

DEVICE = "cuda"
"""Where tensors must lie. Tests that run the kernels emulated set it to "cpu"."""
_RIG_PARAMS = ("means_tri", "quats_tri", "log_scales", "logit_opacities")
_owned: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""face_ids -> (state of face_ids and faces, owners): made once, because it takes sorts and reads by the host."""


def unavailable(device: torch.device) -> str | None:
    """Why these kernels cannot run for tensors on a device, or None."""
    if device.type != DEVICE:
        return f"the CUDA kernels run on a GPU, the tensors are on {device}"
    library = _cuda_library.find()
    return library if isinstance(library, str) else None


def can_take(*tensors: Tensor | None) -> bool:
    """Whether the kernels are there and the tensors are float32 on a GPU."""
    fit = all(t is None or (t.dtype == torch.float32 and t.device.type == DEVICE) for t in tensors)
    return fit and not isinstance(_cuda_library.find(), str)


def render(splats: Splats, cameras: Cameras, background: Tensor, antialiased: bool = False) -> Rendered:
    """Draw splats as ``torch_ref`` defines it, all cameras at once.

    Args:
        splats: Float32, on a GPU.
        cameras: The same; no gradient to Ks (use torch_ref for that).
        background: [3] or [h w 3].
        antialiased: Splats smaller than a pixel fade instead of growing to its size.

    Raises:
        InputError: A tensor is of the wrong dtype or device or holds values that are not finite; it is named.
    """
    fields = (splats.means, splats.quats, splats.scales, splats.opacities, splats.sh)
    return _render(fields, cameras, background, antialiased)


def render_frames(
    rigged: RiggedSplats, mesh: Mesh, cameras: Cameras, background: Tensor, antialiased: bool = False
) -> Rendered:
    """Carry splats by t frames of a mesh and draw each frame with its own camera, all in one launch.

    Args:
        rigged: n splats.
        mesh: t frames.
        cameras: t cameras.
        background: [3] or [h w 3].
        antialiased: As ``render``.

    Returns:
        As ``render``, with one view per frame. Differentiable in everything but the intrinsics.
    """
    if len(mesh.verts) != len(cameras.Ks):
        raise InputError(f"render_frames: want one camera per frame, got {len(cameras.Ks)} for {len(mesh.verts)}")
    return _render((*_carry(rigged, mesh), rigged.sh), cameras, background, antialiased)


def rig(splats: RiggedSplats, mesh: Mesh) -> Splats:
    """Carry splats from their triangles into the world as ``torch_ref.rig`` defines it."""
    means, quats, scales, opacities = _carry(splats, mesh)
    return Splats(means=means[0], quats=quats[0], scales=scales[0], opacities=opacities, sh=splats.sh)


def l1_ssim_loss(image: Tensor, target: Tensor, weight_map: Tensor | None, ssim_weight: float) -> Tensor:
    """The loss that ``torch_ref.l1_ssim_loss`` defines; its gradient is made in the same pass."""
    loss, _ = _cuda_ops.l1_ssim(image, target, weight_map, ssim_weight, torch.is_grad_enabled() and image.requires_grad)
    return loss


@contextmanager
def recording() -> Iterator[list[Room]]:
    """Rasterize without reading from the GPU, as capturing in a CUDA graph needs; yields what to check after replays.

    Buffers get the size that earlier runs with this image size needed, and some more: run once before.
    """
    rooms: list[Room] = []
    _cuda_ops.recordings.append(rooms)
    try:
        yield rooms
    finally:
        _cuda_ops.recordings.pop()


class Graphed:
    """A function of tensors that draws with these kernels, captured in a CUDA graph: a call is a copy and one launch.

    A call whose splats need larger buffers than those captured is noticed before it returns, and answered by capturing
    again.

    Args:
        function: Takes and returns tensors of fixed shapes; no gradients, no reads by the host.
        inputs: An example, copied.
    """

    def __init__(self, function: Callable[..., Any], *inputs: Tensor) -> None:
        self._function, self._inputs = function, [t.detach().clone() for t in inputs]
        self._capture()

    def __call__(self, *inputs: Tensor) -> Any:
        """The function's result; its tensors are overwritten by the next call.

        Raises:
            InputError: An input has another shape than the example, or a tensor on the way is not finite.
        """
        for kept, given in zip(self._inputs, inputs, strict=True):
            if kept.shape != given.shape:
                raise InputError(f"this function was captured for {list(kept.shape)}, got {list(given.shape)}")
            kept.copy_(given, non_blocking=True)
        self._replay()
        if not all([room.fits() for room in self._rooms]):
            self._capture()
            self._replay()
        return self._outputs

    @torch.no_grad()
    def _capture(self) -> None:
        def run() -> Any:
            return self._function(*self._inputs)

        _on_a_side_stream(run)  # finds the sizes, and lets libraries set themselves up
        with recording() as self._rooms:
            self._replay, self._outputs = _captured(run)


def _on_a_side_stream(run: Callable[[], Any]) -> None:
    """As torch wants it before a capture."""
    side, here = torch.cuda.Stream(), torch.cuda.current_stream()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        run()
    here.wait_stream(side)


def _captured(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """What repeats a function as one launch, and the tensors that it then fills."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run()
    return graph.replay, outputs


def _require(named: dict[str, Tensor]) -> None:
    for name, tensor in named.items():
        if tensor.dtype != torch.float32 or tensor.device.type != DEVICE:
            raise InputError(
                f"{name}: the CUDA kernels want float32 on {DEVICE}, got {tensor.dtype} on {tensor.device}"
            )


def _render(splats: Sequence[Tensor], cameras: Cameras, background: Tensor, antialiased: bool) -> Rendered:
    """Means, quats and scales may have a leading dimension of views."""
    rest = (cameras.viewmats, cameras.Ks, background)
    _require(dict(zip(ARRAYS, (*splats, *rest), strict=True)))
    if cameras.Ks.requires_grad:
        raise InputError("Ks: the CUDA kernels give no gradient to intrinsics; detach, or take backend torch_ref")
    grad_px = splats[0].new_zeros(len(cameras.Ks), splats[3].shape[0])
    means, quats, scales, opacities, sh = splats
    images = _cuda_ops.raster(
        means, quats, scales, opacities, sh, *rest, grad_px, cameras.width, cameras.height, antialiased
    )
    rgb, alpha, depth, means2d, radii_px, *_ = images
    return Rendered(rgb=rgb, alpha=alpha, depth=depth, means2d=means2d, radii_px=radii_px, grad_px=grad_px)


def _carry(rigged: RiggedSplats, mesh: Mesh) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """means, quats, scales [t n ...] of every frame, and opacities [n]."""
    params = (rigged.means_tri, rigged.quats_tri, rigged.log_scales, rigged.logit_opacities)
    _require({"verts": mesh.verts, **dict(zip(_RIG_PARAMS, params, strict=True))})
    owners = _owners(rigged.face_ids, mesh.faces, mesh.verts.shape[1])
    carried: tuple[Tensor, Tensor, Tensor, Tensor] = _cuda_ops.rig(
        mesh.verts, *params, rigged.face_ids, mesh.faces, owners
    )
    return carried


def _owners(face_ids: Tensor, faces: Tensor, verts: int) -> list[Tensor]:
    """Who sums what in the backward pass (GsthCudaRigOwners); raises InputError for indices out of range."""
    state = (face_ids._version, faces.data_ptr(), faces._version, len(faces), verts)
    known = _owned.get(face_ids)
    if known is not None and known[0] == state:
        return known[1]
    for name, ids, count in (("face_ids", face_ids, len(faces)), ("faces", faces, verts)):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < count:
            raise InputError(f"{name}: points past the end; want 0 to {count - 1}")
    owners = [*_grouped(face_ids, len(faces)), *_grouped(faces.reshape(-1), verts)]
    _owned[face_ids] = (state, owners)
    return owners


def _grouped(ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """firsts [count + 1] and members: which entries of ``ids`` are i stands at members[firsts[i] : firsts[i + 1]]."""
    firsts = torch.zeros(count + 1, dtype=torch.int32, device=ids.device)
    firsts[1:] = torch.bincount(ids, minlength=count).cumsum(0)
    return firsts, torch.argsort(ids, stable=True).int()
