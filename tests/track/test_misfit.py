"""Slopes in closed form are those of the plain formulas."""

from __future__ import annotations

import torch

from gsth import math3d
from gsth.head import PARENTS, HeadModel, _lbs
from gsth.track import _misfit, _points
from gsth.track._misfit import Wanted
from gsth.track._rig import LandmarkRig, Pose

T = 5


def poses(head: HeadModel) -> Pose:
    """Turned, leaning, speaking."""
    g = torch.Generator().manual_seed(2)
    pose = Pose.at(math3d.quat_identity(T), torch.tensor((0.0, 0.1, 0.8)).expand(T, 3), len(head.expression_names))
    for name in ("root", "neck", "head"):
        setattr(pose, name, 0.2 * torch.randn(T, 3, generator=g))
    pose.gaze = 0.1 * torch.randn(T, 2, 2, generator=g)
    pose.expr = torch.rand(pose.expr.shape, generator=g)
    return pose


def test_planes_lie_where_the_head_model_puts_its_vertices(made_up: HeadModel) -> None:
    rig, pose = LandmarkRig.of(made_up), poses(made_up)
    shape = torch.linspace(-1, 1, made_up.shape_basis.shape[0])
    offsets = 0.001 * torch.randn(_points.COUNT, 3, generator=torch.Generator().manual_seed(4))
    motion = rig.motion(pose, 25.0)
    rest = rig.model.template + torch.einsum("s,svc->vc", shape, rig.model.shape_basis)
    rest = (
        rest + torch.cat((offsets, torch.zeros(2, 3))) + torch.einsum("te,evc->tvc", motion.expr, rig.model.expr_basis)
    )
    pivots = rig.model.pivots + torch.einsum("s,sjc->jc", shape, rig.model.pivot_basis)
    want = _lbs.skin(rest, rig.model.weights, pivots, PARENTS, motion.joints, motion.T_world_head)
    torch.testing.assert_close(rig.points(pose, shape, offsets), want, atol=2e-6, rtol=0)


def test_slopes_of_carrying() -> None:
    g = torch.Generator().manual_seed(0)
    rest, rot, shift = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((2, 3, 7), (2, 4, 3, 3), (2, 4, 3)))
    weights = torch.rand(7, 4, generator=g, dtype=torch.float64)
    given = [x.requires_grad_() for x in (rest, rot, shift)]
    assert torch.autograd.gradcheck(lambda r, q, s: _misfit.carried(r, q, s, weights), given)


def wanted(g: torch.Generator) -> Wanted:
    """Nine points, two pairs of them, the last two far less exact."""
    exact = torch.ones(9, dtype=torch.float64)
    exact[7:] = 0.1
    return Wanted(
        places=100 * torch.rand(2, 2, 9, generator=g, dtype=torch.float64),
        pct=torch.tensor((1.1, 0.9), dtype=torch.float64),
        weight=torch.rand(2, 9, generator=g, dtype=torch.float64),
        exact=exact,
        pairs=([0, 1], [2, 1 + 2]),
        pair_weight=torch.tensor((0.5, 0.7), dtype=torch.float64),
        principal=torch.tensor((50.0, 40.0), dtype=torch.float64),
        soft=0.4,
    )


def plain(points: torch.Tensor, focal: torch.Tensor, w: Wanted) -> torch.Tensor:
    """What ``misfit`` says, step by step."""

    def soft(away: torch.Tensor) -> torch.Tensor:
        return (away.square().sum(1) + w.soft**2).sqrt() - w.soft

    seen = points[:, :2] / points[:, 2:] * focal + w.principal[:, None]
    away = (seen - w.places) * w.pct[:, None, None]
    gap = away[:, :, w.pairs[0]] - away[:, :, w.pairs[1]]
    return (soft(away * w.exact) * w.weight).sum() + (soft(gap).sum(1) * w.pair_weight).sum()


def test_misfit_and_its_slopes() -> None:
    g = torch.Generator().manual_seed(1)
    want, focal = wanted(g), torch.tensor(300.0, dtype=torch.float64, requires_grad=True)
    points = torch.randn(2, 3, 9, generator=g, dtype=torch.float64) * 0.1 + torch.tensor((0.0, 0.0, 1.0))[:, None]
    points.requires_grad_()
    losses = [f(points, focal, want) for f in (_misfit.misfit, plain)]
    torch.testing.assert_close(*losses)
    slopes = [torch.autograd.grad(loss, (points, focal)) for loss in losses]
    torch.testing.assert_close(*slopes)


def test_what_lies_behind_the_camera_is_not_pulled_through_it() -> None:
    g = torch.Generator().manual_seed(1)
    points = torch.randn(2, 3, 9, generator=g, dtype=torch.float64)
    points[:, 2] = -1.0
    points.requires_grad_()
    loss = _misfit.misfit(points, torch.tensor(300.0, dtype=torch.float64), wanted(g))
    (slope,) = torch.autograd.grad(loss, points)
    assert slope.isfinite().all() and (slope[:, 2] == 0).all() and slope[:, :2].abs().max() > 0
