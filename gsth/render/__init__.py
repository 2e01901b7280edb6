"""Rendering: Splats and Cameras in, Rendered out.

A backend is a file in this room with ``unavailable(device) -> str | None`` (why it cannot run there) and
``render(splats, cameras, background) -> Rendered``; all must agree with ``torch_ref``, the definition.
"""

from __future__ import annotations

from torch import Tensor

from gsth.render import torch_ref
from gsth.types import Cameras, Mesh, Rendered, RiggedSplats, Splats


def render(splats: Splats, cameras: Cameras, *, background: Tensor, backend: str = "auto") -> Rendered:
    """Draw splats."""
    return torch_ref.render(splats, cameras, background)


def rig(splats: RiggedSplats, mesh: Mesh) -> Splats:
    """Carry splats from their triangles into the world."""
    return torch_ref.rig(splats, mesh)


def l1_ssim_loss(image: Tensor, target: Tensor, weight_map: Tensor | None = None, ssim_weight: float = 0.2) -> Tensor:
    """L1 plus SSIM."""
    return torch_ref.l1_ssim_loss(image, target, weight_map, ssim_weight)


def backends() -> dict[str, str | None]:
    """Which backends run here."""
    return {"torch_ref": None}
