"""A made-up person: a skin-coloured plate of splats that opens its lower half, seen through an off-centre lens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from gsth.head import JOINTS, HeadModel
from gsth.types import Cameras, HeadId, Identity, Motion, RiggedSplats

if TYPE_CHECKING:
    from gsth.avatar import Avatar

SKIN = (0.85, 0.6, 0.5)
HEAD = HeadId("madeup", "1", "0" * 16)


def _head() -> HeadModel:
    """A grid 20 cm wide and high, 40 mm above the neck, that faces the camera; jawOpen lowers the chin."""
    xs, ys = torch.meshgrid(torch.linspace(-0.1, 0.1, 5), torch.linspace(-0.24, -0.04, 5), indexing="xy")
    verts = torch.stack((xs.flatten(), ys.flatten(), torch.full((25,), -0.05)), -1)
    at = torch.arange(25).reshape(5, 5)
    a, b, c, d = at[:4, :4].flatten(), at[:4, 1:].flatten(), at[1:, 1:].flatten(), at[1:, :4].flatten()
    faces = torch.cat((torch.stack((a, c, b), -1), torch.stack((a, d, c), -1)))
    weights = torch.zeros(25, len(JOINTS))
    weights[:, 2] = 1
    names = ("browInnerUp", "eyeBlinkLeft", "jawOpen", "mouthSmileLeft", "mouthSmileRight")
    expr = torch.zeros(len(names), 25, 3)
    expr[2, 20:, 1] = 0.05
    pivots = torch.zeros(len(JOINTS), 3)
    pivots[2] = torch.tensor((0.0, -0.04, 0.0))
    pivots[3:] = torch.tensor((0.0, -0.14, 0.0))
    return HeadModel(
        id=HEAD,
        template=verts,
        faces=faces,
        uvs=torch.zeros(25, 2),
        shape_basis=torch.zeros(1, 25, 3),
        expr_basis=expr,
        weights=weights,
        pivots=pivots,
        pivot_basis=torch.zeros(1, len(JOINTS), 3),
        expression_names=names,
        parts={},
        landmark_faces=torch.zeros(478, dtype=torch.int64),
        landmark_bary=torch.full((478, 3), 1 / 3),
    )


def _motion(frames: int = 10) -> Motion:
    joints = torch.zeros(frames, len(JOINTS), 4)
    joints[..., 0] = 1
    place = torch.tensor((1.0, 0, 0, 0, 0.02, 0.05, 0.8)).repeat(frames, 1)
    expr = torch.zeros(frames, 5)
    expr[:, 2] = torch.linspace(0, 1, frames)
    return Motion(HEAD, 25.0, expr, joints, place)


def _splats(head: HeadModel) -> RiggedSplats:
    n = len(head.faces)
    colour = (torch.tensor(SKIN) - 0.5) / 0.28209479177387814
    return RiggedSplats(
        face_ids=torch.arange(n),
        means_tri=torch.zeros(n, 3),
        quats_tri=torch.tensor((1.0, 0, 0, 0)).repeat(n, 1),
        log_scales=torch.log(torch.tensor((0.35, 0.35, 0.35))).repeat(n, 1),
        logit_opacities=torch.full((n,), 5.0),
        sh=colour.repeat(n, 1, 1),
    )


@pytest.fixture(scope="session")
def person() -> Avatar:
    """Ten frames at 25 fps, 96 x 96, over a blue plate."""
    avatar = pytest.importorskip("gsth.avatar")
    head, motion = _head(), _motion()
    K = torch.tensor([[150.0, 0, 40], [0, 150, 66], [0, 0, 1]])
    source = avatar.Source(
        clip_path=Path("made_up.mp4"),
        sha256="0" * 64,
        fps=25.0,
        crop_px=(0, 0, 96, 96),
        train_frames=8,
        frame_ids=torch.arange(10),
        found=torch.ones(10, dtype=torch.bool),
        error_pct=torch.zeros(10),
    )
    plate = torch.tensor((0.1, 0.2, 0.7)).repeat(96, 96, 1)
    plate[:, :48] *= 0.5
    return avatar.Avatar(
        head=head,
        identity=Identity(HEAD, torch.zeros(1)),
        splats=_splats(head),
        cameras=Cameras(torch.eye(4)[None], K[None], 96, 96),
        motion=motion,
        source=source,
        plate=plate,
    )
