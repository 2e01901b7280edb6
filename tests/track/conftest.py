"""A made-up head and a made-up clip for the tracking tests: small, exact, and known in every number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gsth import math3d
from gsth.head import HeadModel
from gsth.track import _points
from gsth.track._fit import Observed
from gsth.track._landmarks import Detections
from gsth.track._rig import LandmarkRig, Pose
from gsth.track._signs import Signs
from gsth.types import Clip, HeadId

FOCAL, SIDE = 700.0, 256.0


def made_up_head(shapes: int = 6) -> HeadModel:
    """478 face points on the front of an ellipsoid, 80 on a torso; the expressions that the tests speak of."""
    g = torch.Generator().manual_seed(3)
    yaw = (torch.rand(_points.COUNT, generator=g) - 0.5) * 2.2
    pitch = (torch.rand(_points.COUNT, generator=g) - 0.5) * 2.0
    face = torch.stack((0.075 * yaw.sin() * pitch.cos(), 0.1 * pitch.sin(), -0.095 * yaw.cos() * pitch.cos()), -1)
    face = face + torch.tensor((0.0, -0.12, -0.03))
    for side, index in ((-1, _points.RIGHT_OUTER), (1, _points.LEFT_OUTER)):
        face[index] = torch.tensor((0.045 * side, -0.14, -0.11))
    irises = torch.tensor((*_points.IRIS_RIGHT, *_points.IRIS_LEFT))
    side = torch.tensor([-1.0] * 5 + [1.0] * 5)
    face[irises] = torch.stack((0.03 * side, torch.full((10,), -0.14), torch.full((10,), -0.122)), -1)
    for k, (upper, lower) in enumerate(_points.LIP_PAIRS):
        x = (k - 3) * 0.006
        face[upper], face[lower] = torch.tensor((x, -0.0703, -0.13)), torch.tensor((x, -0.0697, -0.13))
    for pairs, x0 in ((_points.LID_PAIRS_LEFT, 0.03), (_points.LID_PAIRS_RIGHT, -0.03)):
        for k, (upper, lower) in enumerate(pairs):
            x = x0 + (k - 1) * 0.006
            face[upper], face[lower] = torch.tensor((x, -0.146, -0.12)), torch.tensor((x, -0.135, -0.12))
    torso = torch.rand(80, 3, generator=g) * 0.03
    torso[:40] += torch.tensor((0.15, 0.05, 0.0))
    torso[40:] += torch.tensor((-0.18, 0.05, 0.0))
    template = torch.cat((face, torso))
    names = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthSmileLeft", "mouthSmileRight", "browInnerUp")
    names = (*names, "tongueOut")
    expr = torch.zeros(len(names), len(template), 3)
    below = (face[:, 1] > -0.07).float()
    expr[0, : len(face), 1] = 0.03 * below
    for k, pairs in ((1, _points.LID_PAIRS_LEFT), (2, _points.LID_PAIRS_RIGHT)):
        expr[k, [p[0] for p in pairs], 1] = 0.011
    for k, sign in ((3, 1.0), (4, -1.0)):
        near = torch.exp(-((face - torch.tensor((0.025 * sign, -0.07, -0.12))).norm(dim=-1) / 0.02).square())
        expr[k, : len(face)] = near[:, None] * torch.tensor((0.008 * sign, -0.012, 0.0))
    expr[5, : len(face), 1] = -0.012 * torch.exp(-((face[:, 1] + 0.17) / 0.015).square())
    expr[6, :10, 2] = -0.01
    weights = torch.zeros(len(template), 5)
    weights[: len(face), 2] = 1
    weights[len(face) :, 0] = 1
    for iris, joint in ((_points.IRIS_LEFT, 3), (_points.IRIS_RIGHT, 4)):
        weights[list(iris)] = 0
        weights[list(iris), joint] = 1
    smooth = torch.randn(shapes, 3, 3, generator=g)
    basis = 0.03 * torch.einsum("vc,scd->svd", template - template.mean(0), smooth)
    count = len(face)
    faces = torch.stack((torch.arange(count), (torch.arange(count) + 1) % count, (torch.arange(count) + 2) % count), -1)
    bary = torch.zeros(count, 3)
    bary[:, 0] = 1
    above = torch.tensor(((0, -0.09, -0.03), (0.03, -0.14, -0.11), (-0.03, -0.14, -0.11)))
    return HeadModel(
        id=HeadId("made-up", "1", "0" * 16),
        template=template,
        faces=faces,
        uvs=torch.zeros(len(template), 2),
        shape_basis=basis,
        expr_basis=expr,
        weights=weights,
        pivots=torch.cat((torch.zeros(2, 3), above)),
        pivot_basis=torch.zeros(shapes, 5, 3),
        expression_names=names,
        parts={},
        landmark_faces=torch.arange(count),
        landmark_bary=bary,
    )


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> None:
    """Tensors this small are slower on two threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def made_up() -> HeadModel:
    """The made-up head."""
    return made_up_head()


@pytest.fixture(scope="session")
def truth(made_up: HeadModel) -> tuple[Pose, torch.Tensor]:
    """Known motion of 60 frames (turning head on a still torso, speech, two blinks) and identity coefficients."""
    t = torch.arange(60.0)
    pose = Pose.at(math3d.quat_identity(60), torch.tensor((0.01, 0.12, 0.9)).expand(60, 3), 7)
    turn = torch.stack((0.06 * (t / 9).sin(), 0.35 * (t / 12).sin(), 0.05 * (t / 7).cos()), -1)
    pose.neck, pose.head = 0.45 * turn, 0.55 * turn
    pose.gaze[:, :, 1] = (0.15 * (t / 10).cos())[:, None]
    pose.expr[:, 0] = (0.4 * (t / 2.5).sin()).clamp_min(0)
    for k in (1, 2):
        pose.expr[20:23, k] = pose.expr[45:48, k] = 1.0
    pose.expr[:, 3] = pose.expr[:, 4] = 0.3 + 0.3 * (t / 15).sin()
    return pose, torch.tensor((0.8, -0.5, 0.3, 0.6, -0.7, 0.2))


@pytest.fixture(scope="session")
def observed(made_up: HeadModel, truth: tuple[Pose, torch.Tensor]) -> Observed:
    """The truth projected, with 0.3 px of noise (0.8 % of the inter-ocular distance)."""
    pose, shape = truth
    g = torch.Generator().manual_seed(1)
    xyz = LandmarkRig.of(made_up).points(pose, shape, torch.zeros(_points.COUNT, 3))
    px = xyz[..., :2] / xyz[..., 2:] * FOCAL + SIDE / 2 + 0.3 * torch.randn(60, _points.COUNT + 2, 2, generator=g)
    return Observed(
        points=px[:, : _points.COUNT],
        found=torch.ones(60, dtype=torch.bool),
        shoulders=torch.cat((px[:, _points.COUNT :], torch.ones(60, 2, 1)), -1),
        principal=torch.full((2,), SIDE / 2),
        focal=FOCAL * 0.85,
        frame_side=SIDE,
        fps=25.0,
    )


@pytest.fixture
def clip() -> Clip:
    """A clip's description; no file behind it."""
    return Clip(path=Path("me.mp4"), fps=25.0, frames=60, width=640, height=480, wav=Path("me.mp4"))


@pytest.fixture
def seen(clip: Clip) -> Detections:
    """One well-lit face, 90 px between the outer eye corners, in the middle of every frame, before a still wall."""
    seen = Detections.empty(clip)
    rng = np.random.default_rng(0)
    face = rng.uniform(-80, 80, (_points.COUNT, 2)) + (320, 220)
    face[[_points.RIGHT_OUTER, _points.LEFT_OUTER]] = (275, 200), (365, 200)
    face[[_points.FOREHEAD, _points.CHIN]] = (320, 120), (320, 300)
    seen.points[:] = face + rng.normal(0, 1, (clip.frames, 1, 2))
    seen.found[:] = True
    seen.thumbs[:] = rng.integers(0, 255, seen.thumbs.shape[1:], dtype=np.uint8)
    seen.signs[:] = Signs(sharpness=200, light=130, side=1.1, eyes=0.9, lips=12, tongue=0)
    return seen
