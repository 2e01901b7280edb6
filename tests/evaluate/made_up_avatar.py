"""A made-up avatar whose pictures are known."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gsth import evaluate, media
from gsth.evaluate import EvalConfig
from gsth.head import JOINTS, HeadModel
from gsth.types import Cameras, HeadId, Identity, Motion, RiggedSplats

if TYPE_CHECKING:
    from gsth.avatar import Avatar

HEAD = HeadId("madeup", "1", "0" * 16)
CROP = (8, -4, 56, 44)
TRAINED, TOTAL, SIZE = 12, 18, 36
QUICK = EvalConfig(thorough=False)


def film_in(page: str) -> bytes:
    """The video that a report holds."""
    return base64.b64decode(page.split("data:video/mp4;base64,")[1].split('"')[0])


def _head() -> HeadModel:
    """One triangle in front of the camera."""
    weights = torch.zeros(3, len(JOINTS))
    weights[:, 2] = 1
    return HeadModel(
        id=HEAD,
        template=torch.tensor([[-0.1, -0.1, 0.0], [0.1, -0.1, 0.0], [0.0, 0.1, 0.0]]),
        faces=torch.tensor([[0, 1, 2]]),
        uvs=torch.zeros(3, 2),
        shape_basis=torch.zeros(1, 3, 3),
        expr_basis=torch.zeros(2, 3, 3),
        weights=weights,
        pivots=torch.zeros(len(JOINTS), 3),
        pivot_basis=torch.zeros(1, len(JOINTS), 3),
        expression_names=("jawOpen", "browInnerUp"),
        parts={},
        landmark_faces=torch.zeros(478, dtype=torch.int64),
        landmark_bary=torch.full((478, 3), 1 / 3),
    )


def motion_of(frames: int, fps: float) -> Motion:
    joints = torch.zeros(frames, len(JOINTS), 4)
    joints[..., 0] = 1
    place = torch.tensor((1.0, 0, 0, 0, 0, 0, 1.0)).repeat(frames, 1)
    return Motion(HEAD, fps, torch.zeros(frames, 2), joints, place)


def avatar_of(clip_path: Path, crop_px: tuple[int, int, int, int], size: int, trained: int, first: int = 0) -> Avatar:
    """An avatar whose one splat cannot be seen and whose plate is the last training frame: what it shows is known.

    Tracked is the clip from frame ``first`` on.
    """
    from gsth import artifacts
    from gsth.avatar import Avatar, Source

    clip = media.probe(clip_path)
    last = next(media.frames(clip, first + trained - 1, first + trained))
    tracked = clip.frames - first
    source = Source(
        clip_path=clip_path,
        sha256=artifacts.sha256(clip_path),
        fps=clip.fps,
        crop_px=crop_px,
        train_frames=trained,
        frame_ids=torch.arange(first, clip.frames),
        found=torch.ones(tracked, dtype=torch.bool),
        error_pct=torch.zeros(tracked),
    )
    return Avatar(
        head=_head(),
        identity=Identity(HEAD, torch.zeros(1)),
        splats=RiggedSplats(
            face_ids=torch.zeros(1, dtype=torch.int64),
            means_tri=torch.zeros(1, 3),
            quats_tri=torch.tensor([[1.0, 0, 0, 0]]),
            log_scales=torch.full((1, 3), -2.0),
            logit_opacities=torch.full((1,), -20.0),
            sh=torch.zeros(1, 1, 3),
        ),
        cameras=Cameras(torch.eye(4)[None], torch.tensor([[[50.0, 0, 18], [0, 50, 18], [0, 0, 1]]]), size, size),
        motion=motion_of(tracked, clip.fps),
        source=source,
        plate=torch.from_numpy(evaluate.reference_picture(last, crop_px, size, size)).float() / 255,
    )
