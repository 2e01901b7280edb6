"""A render backend: the definition in double precision, to tell rounding from mistakes."""

from __future__ import annotations

import torch
from torch import Tensor

from gsth.render import torch_ref
from gsth.types import Cameras, Rendered, Splats


def unavailable(device: torch.device) -> str | None:
    """Why this backend cannot run on a device, or None."""
    return "Apple's GPUs have no double precision" if device.type == "mps" else None


def render(splats: Splats, cameras: Cameras, background: Tensor, antialiased: bool = False) -> Rendered:
    """Draw splats, differentiable in all of them; arguments and result as ``gsth.render.render`` says."""
    double = torch.float64
    drawn = torch_ref.render(splats.to(double), cameras.to(double), background.to(double), antialiased)
    # Backward fills grad_px in place: a converted copy would stay at zero.
    return drawn.to(splats.means.dtype).replace(grad_px=drawn.grad_px)
