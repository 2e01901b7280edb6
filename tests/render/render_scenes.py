"""Scenes for the renderer's tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gsth.math3d import quat_to_mat
from gsth.types import Cameras, Rendered, Splats

DEGENERATE = ("behind", "in the camera", "zero scale", "huge", "clear", "opaque", "far outside", "same depth", "tiny")

FIELDS = ("means", "quats", "scales", "opacities", "sh")


def make_splats(n: int, bases: int = 1, dtype: torch.dtype = torch.float32, size_m: float = 0.06) -> Splats:
    """A cloud two metres ahead, all sizes and opacities mixed."""
    g = torch.Generator().manual_seed(n)
    spread, ahead = torch.tensor((0.45, 0.45, 0.3)), torch.tensor((0.0, 0.0, 2.0))
    return Splats(
        means=(torch.randn(n, 3, generator=g) * spread + ahead).to(dtype),
        quats=torch.randn(n, 4, generator=g).to(dtype),
        scales=(torch.rand(n, 3, generator=g) * size_m + 0.003).to(dtype),
        opacities=torch.sigmoid(2 * torch.randn(n, generator=g) + 0.5).to(dtype),
        sh=(0.3 * torch.randn(n, bases, 3, generator=g)).to(dtype),
    )


def make_cameras(width: int, height: int, count: int = 1, dtype: torch.dtype = torch.float32) -> Cameras:
    """Cameras that are turned and shifted, with the principal point off centre."""
    viewmats = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    for i in range(count):
        viewmats[i, :3, :3] = quat_to_mat(torch.tensor((1.0, 0.05 + 0.1 * i, -0.04, 0.1), dtype=torch.float64))
        viewmats[i, :3, 3] = torch.tensor((0.02, -0.03, 0.1))
    f = 1.1 * max(width, height)
    K = torch.tensor(((f, 0, width / 2 + 1), (0, f, height / 2 - 2), (0, 0, 1)))
    return Cameras(viewmats.to(dtype), K.to(dtype).repeat(count, 1, 1), width, height)


def degenerate(name: str) -> Splats:
    """24 splats of which some are broken in one of the ways of ``DEGENERATE``; camera z must be the world's."""
    s = make_splats(24)
    means, quats, scales, opacities = s.means.clone(), s.quats.clone(), s.scales.clone(), s.opacities.clone()
    if name == "behind":
        means[:, 2] = -means[:, 2]
    elif name == "in the camera":
        means[::2, 2], means[1::4, 2] = 1e-3, 0.0
    elif name == "zero scale":
        scales[::2] = 0
    elif name == "huge":
        scales[::2] *= 100
    elif name == "clear":
        opacities[::2] = 0
    elif name == "opaque":
        opacities[:] = 1
    elif name == "far outside":
        means[::2, 0] = 40
        scales[::2] *= 30
    elif name == "same depth":
        means[:, :] = means[:1]
    elif name == "tiny":
        scales[::2] *= 0.02
    return Splats(means, quats, scales, opacities, s.sh)


def noise(like: Tensor, seed: int) -> Tensor:
    """The same numbers for every dtype and device."""
    g = torch.Generator().manual_seed(seed)
    return (torch.rand(like.shape, generator=g) - 0.3).to(like)


def run(
    module: Any, splats: Splats, cameras: Cameras, background: Tensor, antialiased: bool = False
) -> tuple[Rendered, dict[str, Tensor]]:
    """Everything rendered, and the gradient of everything for a loss on all outputs."""
    leaves = {f: getattr(splats, f).clone().requires_grad_() for f in FIELDS}
    leaves |= {"background": background.clone().requires_grad_(), "viewmats": cameras.viewmats.clone().requires_grad_()}
    fields = [leaves[f] for f in FIELDS]
    posed = cameras.replace(viewmats=leaves["viewmats"])
    r = module.render(Splats(*fields), posed, leaves["background"], antialiased)
    outputs = (r.rgb, r.alpha, r.depth, 0.01 * r.means2d[r.radii_px > 0])
    torch.stack([(o * noise(o, i)).sum() for i, o in enumerate(outputs)]).sum().backward()
    grads = {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
    return r, grads | {"grad_px": r.grad_px}


def in_double(splats: Splats, cameras: Cameras) -> tuple[Splats, Cameras]:
    """For the definition that is compared with."""
    double = Splats(*(getattr(splats, f).double() for f in FIELDS))
    return double, cameras.replace(viewmats=cameras.viewmats.double(), Ks=cameras.Ks.double())
