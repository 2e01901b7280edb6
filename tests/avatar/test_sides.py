"""Views from the side of the made-up ball: what lies behind its surface is found, and covered by what lies before."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from gsth import math3d, render
from gsth.avatar import _regions
from gsth.avatar._init import SH_C0
from gsth.avatar._sides import Side, leak, sides
from gsth.avatar._views import Views, look, spread_frames
from gsth.head import HeadModel, ShapedHead
from gsth.types import Motion, Splats, Track


@pytest.fixture
def shaped(ball: HeadModel, ball_track: Track) -> ShapedHead:
    return ball.shaped(ball_track.identity)


@pytest.fixture
def views(ball: HeadModel, ball_track: Track) -> Views:
    return look(ball_track, ball, spread_frames(ball_track, 8, 4))


def around(shaped: ShapedHead, views: Views, motion: Motion) -> list[Side]:
    return sides(views, motion, shaped, torch.ones(len(shaped.model.faces), dtype=torch.bool))


def painted(shaped: ShapedHead, motion: Motion) -> Splats:
    """A splat on every vertex, large enough to leave no hole."""
    means = shaped.posed(motion).verts[0]
    n = len(means)
    return Splats(
        means=means,
        quats=math3d.quat_identity(n),
        scales=torch.full((n, 3), 0.007),
        opacities=torch.full((n,), 0.95),
        sh=torch.zeros(n, 1, 3),
    )


def to_camera(splats: Splats, side: Side) -> torch.Tensor:
    """Camera z of each splat, less that of the ball's middle, m: negative in front."""
    z = (splats.means @ side.cameras.viewmats[0, :3, :3].T + side.cameras.viewmats[0, :3, 3])[:, 2]
    return z - (z.amin() + z.amax()) / 2


def test_looks_come_from_both_sides_and_know_the_surface(shaped: ShapedHead, views: Views, ball_motion: Motion) -> None:
    found = around(shaped, views, ball_motion)
    assert [s.frame for s in found] == views.frames
    turns = [float(math3d.mat_to_quat(s.cameras.viewmats[0, :3, :3])[2]) for s in found]
    assert min(turns) < -0.1 and max(turns) > 0.1
    for side in found:
        solid = side.behind.isfinite()
        assert 0.05 < solid.float().mean() < 0.95
        # The ball is 10 to 13 cm in radius and 60 cm away; its surface is a few centimetres thick.
        assert 0.47 < side.behind[solid].min() < 0.56 and side.behind[solid].max() < 0.65


def test_a_closed_surface_hides_what_is_behind_and_a_hole_shows_it(
    shaped: ShapedHead, views: Views, ball_motion: Motion
) -> None:
    side = around(shaped, views, ball_motion)[0]
    whole = painted(shaped, ball_motion[side.frame])
    z = to_camera(whole, side)
    centre = whole.means[z.argmin()]
    hole = (whole.means - centre).norm(dim=1) < 0.04
    torn = whole.replace(opacities=torch.where(hole, 0.05, whole.opacities))
    half = whole.replace(opacities=torch.where(z < 0, 0.0, whole.opacities))
    # A splat at the very outline reaches inwards past what hides its centre: a little shows of any ball.
    assert leak(whole, side) < 0.02
    assert leak(torn, side) > 3 * leak(whole, side)
    assert leak(half, side) > 15 * leak(whole, side)


def test_what_is_in_front_closes_the_hole(shaped: ShapedHead, views: Views, ball_motion: Motion) -> None:
    side = around(shaped, views, ball_motion)[0]
    whole = painted(shaped, ball_motion[side.frame])
    z = to_camera(whole, side)
    hole = (whole.means - whole.means[z.argmin()]).norm(dim=1) < 0.04
    opacities = torch.where(hole, 0.3, whole.opacities).requires_grad_()
    means = whole.means.clone().requires_grad_()
    scales = whole.scales.clone().requires_grad_()
    leak(whole.replace(opacities=opacities, means=means, scales=scales), side).backward()
    assert opacities.grad is not None and means.grad is not None
    assert (opacities.grad[hole] < 0).all()
    behind = z > 0.06
    assert (opacities.grad[behind] == 0).all() and (means.grad[behind] == 0).all()
    assert scales.grad is None or not scales.grad.any()


def test_open_mouths_and_eyes_may_show_what_is_in_them(
    ball: HeadModel, ball_track: Track, views: Views, ball_motion: Motion
) -> None:
    parts = {"mouth_inner": ball.parts["face"], "scalp": ball.parts["scalp"]}
    open_ = dataclasses.replace(ball, parts=parts)
    for side in around(open_.shaped(ball_track.identity), views, ball_motion)[:2]:
        splats = painted(open_.shaped(ball_track.identity), ball_motion[side.frame])
        z = to_camera(splats, side)
        clear = splats.replace(opacities=torch.where(z < 0, 0.0, splats.opacities))
        colour = torch.full((len(z), 1, 3), 0.5 / SH_C0)
        shown = render.render(clear.replace(sh=colour), side.cameras, background=torch.zeros(3)).alpha.mean()
        assert leak(clear, side) < 0.7 * shown
    assert (_regions.per_face(open_, "kin")[parts["mouth_inner"]] == _regions.INSIDE).all()
