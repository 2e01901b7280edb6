"""Adapter to gsplat (Ye et al., JMLR 2025), for NVIDIA GPUs. gsplat is not touched where torch has no GPU.

gsplat clamps alpha at 0.999 where we clamp at 0.99; all else follows the same definition.
"""

from __future__ import annotations

import importlib.util
import math

import torch
from torch import Tensor

from gsth.errors import MissingExtraError
from gsth.render.torch_ref import DILATION_PX2, NEAR_M
from gsth.types import Cameras, Rendered, Splats


def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot run on a device, or None."""
    if not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU"
    if device.type != "cuda":
        return f"gsplat runs on a GPU, the tensors are on {device}"
    if importlib.util.find_spec("gsplat") is None:
        return str(MissingExtraError("gsplat", "gpu", "rendering on a GPU"))
    return None


def render(splats: Splats, cameras: Cameras, background: Tensor, antialiased: bool = False) -> Rendered:
    """Draw splats; see ``torch_ref.render``. ``grad_px`` is filled by backward."""
    import gsplat

    colors, alphas, info = gsplat.rasterization(
        means=splats.means,
        quats=splats.quats,
        scales=splats.scales,
        opacities=splats.opacities,
        colors=splats.sh,
        viewmats=cameras.viewmats,
        Ks=cameras.Ks,
        width=cameras.width,
        height=cameras.height,
        near_plane=NEAR_M,
        eps2d=DILATION_PX2,
        sh_degree=math.isqrt(splats.sh.shape[1]) - 1,
        packed=False,
        render_mode="RGB+ED",
        rasterize_mode="antialiased" if antialiased else "classic",
    )
    means2d, radii = info["means2d"], info["radii"]
    grad_px = means2d.new_zeros(means2d.shape[:2])
    if means2d.requires_grad:
        means2d.register_hook(lambda grad: _keep_norm(grad_px, grad))
    alpha = alphas[..., 0]
    return Rendered(
        rgb=colors[..., :3] + (1 - alphas) * background,
        alpha=alpha,
        depth=torch.where(alpha > 0, colors[..., 3], 0),
        means2d=means2d,
        radii_px=(radii.amax(-1) if radii.dim() == 3 else radii).to(means2d.dtype),
        grad_px=grad_px,
    )


def _keep_norm(kept: Tensor, grad: Tensor) -> None:
    kept.copy_(grad.norm(dim=-1))
