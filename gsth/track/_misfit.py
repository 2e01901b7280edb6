"""Landmarks of many frames, carried by a head and compared with detections; slopes in closed form.

The landmark fit asks for these slopes some hundred times. Coordinates lie in planes here ([t 3 v]: all x, all y, all
z), so that every step is one operation on long rows; a matrix per point, and a tape of a hundred small operations, cost
several times as much as the mathematics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NEAR = 1e-3
"""Nothing is seen from nearer than this, m."""


def soft(squared: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Charbonnier penalty of squared residuals, and its slope by half of them."""
    root = (squared + scale**2).sqrt_()
    return root - scale, 1 / root


class _Carry(torch.autograd.Function):
    """Linear blend skinning (``gsth.head._lbs.skin``) of points in planes."""

    @staticmethod
    def forward(ctx: Any, rest: Tensor, joints: Tensor, weights: Tensor) -> Tensor:
        """rest [t 3 v], rows of each joint's matrix [t 3 4 j], weights [v j]; gives [t 3 v]."""
        mixed = (joints.flatten(0, 2) @ weights.T).view(*joints.shape[:3], -1)
        ctx.save_for_backward(rest, mixed, weights)
        out = mixed[:, :, 3].clone()
        for c in range(3):
            out.addcmul_(mixed[:, :, c], rest[:, None, c])
        return out

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rest, mixed, weights = ctx.saved_tensors
        by_rest = mixed[:, 0, :3] * slope[:, :1]
        for c in (1, 2):
            by_rest.addcmul_(mixed[:, c, :3], slope[:, c : c + 1])
        by_mixed = torch.empty_like(mixed)
        torch.mul(slope[:, :, None], rest[:, None], out=by_mixed[:, :, :3])
        by_mixed[:, :, 3] = slope
        by_joints = (by_mixed.flatten(0, 2) @ weights).view(*mixed.shape[:3], -1)
        return by_rest, by_joints, None


def carried(rest: Tensor, rot: Tensor, shift: Tensor, weights: Tensor) -> Tensor:
    """Points [t 3 v] where joints with these rotations [t j 3 3] and shifts [t j 3] bring them."""
    joints = torch.cat((rot, shift[..., None]), -1).permute(0, 2, 3, 1)
    return _Carry.apply(rest, joints.contiguous(), weights)


@dataclass(frozen=True, eq=False)
class Wanted:
    """Where landmarks should be seen in t frames, and how much it matters."""

    places: Tensor
    """Face points, then two shoulders, px [t 2 v]."""
    pct: Tensor
    """% of the inter-ocular distance for each px [t]."""
    weight: Tensor
    """Of each point in the loss [t v]."""
    exact: Tensor
    """How exactly each point is seen, against face points [v]."""
    pairs: tuple[list[int], list[int]]
    """Points whose gap counts on its own: upper, lower."""
    pair_weight: Tensor
    """Of each gap [t]."""
    principal: Tensor
    """px [2]."""
    soft: float
    """Bound of the Charbonnier penalty, % of the inter-ocular distance."""


class _Misfit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, focal: Tensor, wanted: Wanted) -> Tensor:
        depth = points[:, 2:].clamp_min(NEAR)
        centred = points[:, :2] / depth
        away = centred * focal
        away.add_(wanted.principal[:, None]).sub_(wanted.places).mul_(wanted.pct[:, None, None])
        cost, slope = soft(away.square().sum(1) * wanted.exact.square(), wanted.soft)
        loss = (cost * wanted.weight).sum()
        upper, lower = wanted.pairs
        gap = away[:, :, upper] - away[:, :, lower]
        gap_cost, gap_slope = soft(gap.square().sum(1), wanted.soft)
        loss += (gap_cost.sum(1) * wanted.pair_weight).sum()
        away *= (slope * wanted.weight * wanted.exact.square())[:, None]
        gap *= (gap_slope * wanted.pair_weight[:, None])[:, None]
        away.index_add_(2, torch.tensor(upper), gap).index_add_(2, torch.tensor(lower), gap, alpha=-1)
        away *= wanted.pct[:, None, None]
        by_focal = (away * centred).sum()
        across = away * (focal / depth)
        along = -(across * centred).sum(1, keepdim=True) * (points[:, 2:] > NEAR)
        ctx.save_for_backward(torch.cat((across, along), 1), by_focal)
        return loss

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        by_points, by_focal = ctx.saved_tensors
        return by_points * slope, by_focal * slope, None


def misfit(points: Tensor, focal: Tensor, wanted: Wanted) -> Tensor:
    """The loss of points [t 3 v], camera frame, m, seen with a focal length in px."""
    return _Misfit.apply(points, focal, wanted)
