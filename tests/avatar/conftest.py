"""A made-up head (a ball that can bulge and turn) and a tracked clip of it, both tiny."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from gsth import math3d, media, render
from gsth.head import JOINTS, HeadModel
from gsth.types import Cameras, Clip, HeadId, Identity, Motion, Splats, Track

SIZE = 48
FRAMES = 10


@pytest.fixture(scope="session")
def ball() -> HeadModel:
    """A ball of 10 cm radius around the head joint: three expressions push three sides out."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.1)
    verts = torch.from_numpy(np.asarray(mesh.vertices)).float()
    normals = verts / verts.norm(dim=1, keepdim=True)
    directions = torch.tensor(((1.0, 0, -1), (-1.0, 0, -1), (0, 1.0, -1)))
    bulge = (normals @ directions.T / math.sqrt(2)).relu().T[..., None] * normals * 0.03
    faces = torch.from_numpy(np.asarray(mesh.faces)).long()
    front = (verts[faces].mean(1)[:, 2] < 0).nonzero()[:, 0]
    weights = torch.zeros(len(verts), len(JOINTS))
    weights[:, 2] = 1
    return HeadModel(
        id=HeadId("ball", "1", "0" * 64),
        template=verts,
        faces=faces,
        uvs=torch.zeros(len(verts), 2),
        shape_basis=verts[None] * 0.05,
        expr_basis=bulge,
        weights=weights,
        pivots=torch.zeros(len(JOINTS), 3),
        pivot_basis=torch.zeros(1, len(JOINTS), 3),
        expression_names=("a", "b", "c"),
        parts={"face": front, "scalp": torch.tensor(sorted(set(range(len(faces))) - set(front.tolist())))},
        landmark_faces=front[torch.arange(478) % len(front)],
        landmark_bary=torch.full((478, 3), 1 / 3),
    )


@pytest.fixture(scope="session")
def ball_motion(ball: HeadModel) -> Motion:
    """Turns slowly and bulges in and out before a camera 60 cm away."""
    phase = torch.linspace(0, 2 * math.pi, FRAMES)
    expr = torch.stack((phase.sin().relu(), (-phase.sin()).relu(), 0.5 - 0.5 * phase.cos()), 1)
    joints = math3d.quat_identity(FRAMES, len(JOINTS))
    turn = torch.stack((torch.zeros(FRAMES), 0.3 * phase.sin(), torch.zeros(FRAMES)), 1)
    joints[:, 2] = math3d.rotvec_to_quat(turn)
    place = torch.cat((math3d.quat_identity(FRAMES), torch.tensor((0.0, 0.0, 0.6)).expand(FRAMES, 3)), 1)
    return Motion(ball.id, 25.0, expr, joints, place)


@pytest.fixture(scope="session")
def ball_track(ball: HeadModel, ball_motion: Motion, tmp_path_factory: pytest.TempPathFactory) -> Track:
    """The ball, painted in stripes, before a plain wall: pictures, mattes, plate and exact motion."""
    folder: Path = tmp_path_factory.mktemp("ball")
    K = torch.tensor(((SIZE * 2.0, 0, SIZE / 2), (0, SIZE * 2.0, SIZE / 2), (0, 0, 1)))
    cameras = Cameras(torch.eye(4)[None], K[None], SIZE, SIZE)
    identity = Identity(ball.id, torch.zeros(1))
    mesh = ball.shaped(identity).posed(ball_motion)
    plate = torch.full((SIZE, SIZE, 3), 0.8)
    stripes = 0.5 + 0.4 * torch.sin(60 * ball.template)
    n = len(ball.template)
    images, mattes = [], []
    for verts in mesh.verts:
        paint = Splats(
            means=verts,
            quats=math3d.quat_identity(n),
            scales=torch.full((n, 3), 0.006),
            opacities=torch.full((n,), 0.95),
            sh=((stripes - 0.5) / 0.28209479)[:, None],
        )
        drawn = render.render(paint, cameras, background=plate, backend="torch_ref")
        images.append((drawn.rgb[0].clamp(0, 1) * 255).byte())
        mattes.append((drawn.alpha[0] * 255).byte())
    clip_path = folder / "ball.mp4"
    media.write_video(clip_path, [i.numpy() for i in images], 25.0)
    return Track(
        clip=Clip(clip_path, 25.0, FRAMES, SIZE, SIZE, None),
        frame_ids=torch.arange(FRAMES),
        crop_px=(0, 0, SIZE, SIZE),
        cameras=cameras,
        identity=identity,
        motion=ball_motion,
        landmarks_px=math3d.project(ball.landmarks(mesh.verts), K),
        found=torch.ones(FRAMES, dtype=torch.bool),
        error_pct=torch.zeros(FRAMES),
        images=torch.stack(images).numpy(),
        mattes=torch.stack(mattes).numpy(),
        plate=plate,
    )


@pytest.fixture(scope="session", autouse=True)
def _ball_is_installed(ball: HeadModel) -> Iterator[None]:
    """gsth.head.load gives the ball where an artifact names it."""
    from gsth import head

    real = head.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head, "load", lambda name="builtin": ball if name in ("ball", ball.id) else real(name))
        yield
