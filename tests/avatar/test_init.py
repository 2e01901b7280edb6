from __future__ import annotations

from pathlib import Path

import small_work
import torch

from gsth import math3d, render
from gsth.avatar import AvatarConfig, _regions
from gsth.avatar._init import initial_splats
from gsth.avatar._reel import Reel
from gsth.avatar._views import Views, spread_frames
from gsth.head import HeadModel, load
from gsth.types import Mesh, Track

SH_C0 = 0.28209479177387814

CONFIG = AvatarConfig(splats=800, max_splats=1000)


def test_first_splats_already_look_like_the_clip(ball_track: Track, ball: HeadModel) -> None:
    splats = initial_splats(Reel.of(ball_track, 8), ball, CONFIG)
    mesh = ball.shaped(ball_track.identity).posed(ball_track.motion[0])
    drawn = render.render(render.rig(splats, mesh), ball_track.cameras, background=ball_track.plate)
    truth = torch.from_numpy(ball_track.images[0]) / 255
    assert -10 * (drawn.rgb[0] - truth).square().mean().log10() > 20


def test_splats_lie_on_their_triangles(ball_track: Track, ball: HeadModel) -> None:
    base = initial_splats(Reel.of(ball_track, 8), ball, CONFIG)
    mesh = ball.shaped(ball_track.identity).posed(ball_track.motion[0])
    world = render.rig(base, Mesh(mesh.verts[:1], mesh.faces))
    centre = math3d.transform_points(ball_track.motion.T_world_head[0], torch.zeros(3))
    radius = (world.means - centre).norm(dim=1)
    assert (radius > 0.085).all() and (radius < 0.14).float().mean() > 0.95


def test_no_splats_where_the_matte_shows_no_person(ball_track: Track, ball: HeadModel) -> None:
    half = ball_track.mattes.copy()
    half[:, :, : half.shape[2] // 2] = 0
    splats = initial_splats(Reel.of(ball_track.replace(mattes=half), 8), ball, CONFIG)
    mesh = ball.shaped(ball_track.identity).posed(ball_track.motion[0])
    world = render.rig(splats, mesh)
    px = math3d.project(world.means, ball_track.cameras.Ks[0])
    assert (px[:, 0] > ball_track.cameras.width / 2 - 8).all()


def test_the_cap_holds_from_the_start(ball_track: Track, ball: HeadModel) -> None:
    """What stands beyond the mesh is filled as far as there is room."""
    wide = ball_track.mattes.copy()
    wide[:, 4:-4, 4:-4] = 255
    track = ball_track.replace(mattes=wide)
    counts = [
        len(initial_splats(Reel.of(track, 8), ball, AvatarConfig(splats=300, max_splats=most)).face_ids)
        for most in (300, 330, 400)
    ]
    assert counts[0] == 300 < counts[1] <= 330 < counts[2] <= 400


def test_a_mouth_that_never_opened_starts_in_its_own_colours(tmp_path: Path) -> None:
    """No skin from before the closed lips."""
    track = small_work.track(tmp_path / "clip.mp4")
    shut = torch.zeros_like(track.motion.expr)
    track = track.replace(motion=track.motion.replace(expr=shut))
    splats = initial_splats(Reel.of(track, 8), load("builtin"), AvatarConfig(splats=6000, max_splats=8000))
    regions = _regions.region_of_faces(load("builtin"))[splats.face_ids]
    for index, region in enumerate(_regions.REGIONS):
        if region.name in ("teeth_upper", "teeth_lower", "mouth_inner", "tongue"):
            mine = splats.sh[regions == index, 0] * SH_C0 + 0.5
            assert len(mine) > 5
            torch.testing.assert_close(mine, torch.tensor(region.colour).expand_as(mine), msg=region.name)


def test_spread_frames_prefers_what_differs(ball_track: Track) -> None:
    frames = spread_frames(Reel.of(ball_track, 8), 3)
    assert len(set(frames)) == 3 and max(frames) < 8


def test_colours_are_of_the_frames_that_look_squarely_and_of_a_sheets_inner_side_on_demand() -> None:
    """A red frame sees a triangle squarely, a green one at 60 degrees, a blue one from behind."""
    corners = torch.tensor(((0.0, -0.1, 0.0), (-0.1, 0.1, 0.0), (0.1, 0.1, 0.0)))
    turns = torch.tensor(((0.0, 0.0, 0.0), (0.0, torch.pi / 3, 0.0), (0.0, torch.pi, 0.0)))
    towards = math3d.quat_rotate(math3d.rotvec_to_quat(turns)[:, None], corners[None]) + torch.tensor((0.0, 0.0, 1.0))
    images = torch.eye(3)[:, None, None, :].expand(3, 8, 8, 3)
    K = torch.tensor(((8.0, 0.0, 4.0), (0.0, 8.0, 4.0), (0.0, 0.0, 1.0))).expand(3, 3, 3)
    views = Views([0, 1, 2], towards, images, torch.ones(3, 8, 8) > 0, torch.full((3, 8, 8), 2.0), K)
    face, centre = torch.tensor(((0, 1, 2),)), towards.mean(1, keepdim=True)
    torch.testing.assert_close(views.colours(face, centre)[0], torch.tensor(((2.0, 1.0, 0.0),)) / 3, atol=0.01, rtol=0)
    both = torch.tensor(((2.0, 1.0, 2.0),)) / 5
    torch.testing.assert_close(views.colours(face, centre, inner=True)[0], both, atol=0.01, rtol=0)
    hidden = views.colours(face, centre + torch.tensor((0.0, 0.0, 1.1)))
    assert views.colours(face, centre)[1].all() and not hidden[1].any()
