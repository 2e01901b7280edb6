"""gsplat's plain-torch reference, completed so that it runs on a CPU; only its file ``_torch_impl.py`` is loaded.

As shipped it needs CUDA for two steps. Here their meaning is written in torch: which splats colour which pixel (a CUDA
operator of gsplat's), and the scans over the splats of a pixel (nerfacc's). Neither is tuned, nor worse than the rest.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from gsth.render.torch_ref import ALPHA_MIN, TRANSMITTANCE_MIN
from gsth.types import Cameras, Splats

_TILE_PX = 32


@cache
def reference() -> ModuleType | None:
    """gsplat's ``_torch_impl``, or None where gsplat is not installed; the package itself is never imported."""
    package = importlib.util.find_spec("gsplat")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "cuda" / "_torch_impl.py"
    spec = importlib.util.spec_from_file_location("_gsplat_torch_impl", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    scans = ModuleType("nerfacc")
    vars(scans).update(render_weight_from_alpha=_weights, accumulate_along_rays=_accumulate)
    sys.modules["nerfacc"] = scans
    return module


def render(splats: Splats, cameras: Cameras, background: Tensor) -> tuple[Tensor, Tensor]:
    """rgb [h w 3] and alpha [h w] of the first camera, differentiable."""
    gsplat = reference()
    assert gsplat is not None, "gsplat is not installed"
    width, height = cameras.width, cameras.height
    covars, _ = gsplat._quat_scale_to_covar_preci(splats.quats, splats.scales, compute_preci=False)
    radii, means2d, depths, conics, _ = gsplat._fully_fused_projection(
        splats.means, covars, cameras.viewmats[:1], cameras.Ks[:1], width, height
    )
    eye = torch.linalg.inv(cameras.viewmats[0])[:3, 3]
    degree = math.isqrt(splats.sh.shape[1]) - 1
    colors = (gsplat._spherical_harmonics(degree, splats.means - eye, splats.sh) + 0.5).clamp_min(0)
    ids, pixels = _pairs(means2d[0], conics[0], splats.opacities, depths[0], radii[0], (width, height))
    image = torch.zeros_like(ids)
    rgb, alpha = gsplat.accumulate(
        means2d, conics, splats.opacities[None], colors[None], ids, pixels, image, width, height
    )
    return rgb[0] + background * (1 - alpha[0]), alpha[0, ..., 0]


@torch.no_grad()
def _pairs(
    means2d: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor, size_px: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Splat and pixel of everything that is coloured, pixel after pixel, front to back."""
    order = torch.argsort(depths, stable=True)
    order = order[(radii[order] > 0).all(-1)]
    low, high = (means2d - radii)[order], (means2d + radii)[order]
    ids, pixels = [], []
    for top in range(0, size_px[1], _TILE_PX):
        for left in range(0, size_px[0], _TILE_PX):
            right, bottom = min(left + _TILE_PX, size_px[0]), min(top + _TILE_PX, size_px[1])
            touch = (low[:, 0] < right) & (high[:, 0] > left) & (low[:, 1] < bottom) & (high[:, 1] > top)
            mine = order[touch]
            x, y = torch.meshgrid(torch.arange(left, right), torch.arange(top, bottom), indexing="xy")
            x, y = x.reshape(-1, 1), y.reshape(-1, 1)
            dx, dy = x + 0.5 - means2d[mine, 0], y + 0.5 - means2d[mine, 1]
            a, b, c = conics[mine].unbind(-1)
            alpha = (opacities[mine] * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)).clamp_max(0.999)
            seen = alpha >= ALPHA_MIN
            seen &= torch.where(seen, 1 - alpha, 1).cumprod(-1) > TRANSMITTANCE_MIN
            pixel, place = seen.nonzero(as_tuple=True)
            ids.append(mine[place]), pixels.append((y * size_px[0] + x)[pixel, 0])
    return torch.cat(ids), torch.cat(pixels)


def _weights(alphas: Tensor, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
    """Blending weights and transmittances of alphas that are sorted within each run of one ray."""
    logs = torch.log1p(-alphas.double())
    before = logs.cumsum(0) - logs
    starts = torch.ones_like(ray_indices, dtype=torch.bool)
    starts[1:] = ray_indices[1:] != ray_indices[:-1]
    run = starts.cumsum(0) - 1
    left_over = torch.exp(before - before[starts][run]).to(alphas.dtype)
    return left_over * alphas, left_over


def _accumulate(weights: Tensor, values: Tensor | None, ray_indices: Tensor, n_rays: int) -> Tensor:
    weighted = weights[:, None] if values is None else weights[:, None] * values
    return weighted.new_zeros(n_rays, weighted.shape[1]).index_add(0, ray_indices, weighted)
