"""What training minimises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gsth import render
from gsth.avatar._config import LossWeights
from gsth.types import Rendered, RiggedSplats

HEIGHT_M = 0.005
"""Unit of the distance from the mesh in the prior."""
MAX_SH = 0.5 / 0.28209479177387814
"""Beyond this, a coefficient of degree 0 alone gives a colour below 0 or above 1."""
NEEDLE = 4.0
"""Ratio of a splat's two longest axes from which on it is a needle."""

# MediaPipe's face mesh: points around what a viewer looks at first.
_MOUTH = (61, 291, 0, 17, 13, 14, 37, 267, 84, 314)
_EYES = ((33, 133, 159, 145, 160, 144), (263, 362, 386, 374, 387, 373))
_FACE = (10, 152, 234, 454, 127, 356, 58, 288)


def pixel_weights(landmarks_px: Tensor, height: int, width: int, weights: LossWeights) -> Tensor:
    """Weight of each pixel [h w], 1 outside the face, for landmarks [l 2] in px of the picture."""
    out = torch.ones(height, width)
    boxes = [(_FACE, weights.face, 0.05), (_MOUTH, weights.mouth, 0.35)]
    boxes += [(eye, weights.eyes, 0.6) for eye in _EYES]
    for ids, extra, margin in boxes:
        points = landmarks_px[list(ids)]
        low, high = points.amin(0), points.amax(0)
        pad = margin * (high - low).max()
        x0, y0 = (low - pad).floor().long().clamp_min(0).tolist()
        x1, y1 = (high + pad).ceil().long().clamp_min(0).tolist()
        out[y0:y1, x0:x1] += extra
    return out / out.mean()


@dataclass(frozen=True)
class Bounds:
    """What each splat's region allows, in units of its triangle at rest."""

    offset: Tensor
    """Largest distance from the triangle's centre, [n]."""
    scale: Tensor
    """Largest standard deviation, [n]."""

    @classmethod
    def of(cls, face_ids: Tensor, face_size: Tensor, max_offset: Tensor, max_scale: Tensor) -> Bounds:
        """From per-triangle tables [f]: size at rest (m) and the region's limits (m)."""
        size = face_size[face_ids].clamp_min(1e-6)
        # A splat anywhere on its own triangle is on the mesh, however large the triangle is.
        return cls(offset=max_offset[face_ids] / size + 1.0, scale=max_scale[face_ids] / size)


def picture(rendered: Rendered, image: Tensor, matte: Tensor, weight_map: Tensor, weights: LossWeights) -> Tensor:
    """L1 + SSIM against the picture [h w 3], and opacity against the matte [h w]."""
    loss = render.l1_ssim_loss(rendered.rgb[0], image, weight_map, weights.ssim)
    return loss + weights.matte * (rendered.alpha[0] - matte).abs().mean()


def bounds(splats: RiggedSplats, limits: Bounds, weights: LossWeights) -> Tensor:
    """Quadratic price of splats beyond what their region allows."""
    far = (splats.means_tri.norm(dim=-1) / limits.offset - 1).relu()
    big = (splats.log_scales.amax(-1) - limits.scale.log()).relu()
    return weights.offset * (far * far).mean() + weights.scale * (big * big).mean()


@dataclass(frozen=True)
class Neighbourhood:
    """What the surroundings of each splat are like."""

    face_size: Tensor
    """Of its triangle at rest, m, [n]."""
    lent: Tensor
    """SH coefficients, [n k 3]."""
    pull: Tensor
    """How little the splat was seen itself, 0 to 1, [n]."""
    height: Tensor
    """Distance from the mesh, m, [n]."""


def priors(splats: RiggedSplats, around: Neighbourhood, weights: LossWeights) -> Tensor:
    """What decides where pictures do not: an even surface, no needles, possible colours, the neighbours' looks.

    The prices are far below what a visible splat's pixels weigh; Adam makes them felt by the others.
    """
    height = (splats.means_tri[:, 1] * around.face_size - around.height) / HEIGHT_M
    two = splats.log_scales.topk(2, -1).values
    needle = (two[:, 0] - two[:, 1] - math.log(NEEDLE)).relu()
    strange = (splats.sh - around.lent).square().mean((1, 2)) * around.pull
    glaring = (splats.sh[:, 0].abs() - MAX_SH).relu().square().mean(1)
    prices = (
        (weights.height, height.square()),
        (weights.needle, needle.square()),
        (weights.lent, strange + glaring),
    )
    return torch.stack([weight * price.mean() for weight, price in prices]).sum()


def mean_square(*tensors: Tensor) -> Tensor:
    """Sum of the mean squares; 0 for a tensor without elements (an avatar without correctives)."""
    return torch.stack([t.square().sum() / max(t.numel(), 1) for t in tensors]).sum()
