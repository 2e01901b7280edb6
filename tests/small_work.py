"""A run whose tracking is done: a few small pictures of the built-in head, with the motion that made them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from gsth import artifacts, head, math3d, media, pipeline
from gsth._config import presets
from gsth.head._raster import rasterize
from gsth.types import Cameras, Clip, Identity, Motion, Track

SIZE, FRAMES = 64, 10


def config(**avatar: object) -> pipeline.TrainConfig:
    """The preset ``quick``, smaller; with changed settings of the avatar."""
    quick = presets(pipeline.TrainConfig, "train")["quick"]
    tracking = replace(quick.track, size=SIZE, report=False)
    small = replace(quick.avatar, steps=40, splats=600, max_splats=900, correctives=2, checkpoint_every=10)
    return pipeline.TrainConfig(tracking, replace(small, **avatar))


def arguments(clip: Path, out: Path, *more: object) -> list[str]:
    """``gsth train`` of what ``write`` made, with ``config()``."""
    said = ("--consent", "nobody: a head of clay", "quick", "--track.size", SIZE, "--track.no-report")
    small = "steps 40 splats 600 max-splats 900 correctives 2 checkpoint-every 10".split()
    settings = [f"--avatar.{word}" if i % 2 == 0 else word for i, word in enumerate(small)]
    return [*map(str, ("train", clip, "--out", out, *said, *settings, *more))]


def write(clip_path: Path, out: Path) -> None:
    """The clip, and what ``gsth train CLIP --out OUT`` keeps of its tracking in the work folder."""
    work = pipeline.work_folder(out)
    artifacts.save(track(clip_path), work / "track")
    key = {
        "sha256": artifacts.sha256(clip_path),
        "config": json.dumps(asdict(config().track), sort_keys=True, default=str),
    }
    (work / "track.json").write_text(json.dumps(key))


def track(clip_path: Path) -> Track:
    """Of a clip that this writes."""
    model = head.load()
    identity = Identity(model.id, torch.zeros(len(model.shape_basis)))
    phase = torch.linspace(0, 6.28, FRAMES)
    expr = torch.zeros(FRAMES, len(model.expression_names))
    expr[:, model.expression_names.index("jawOpen")] = 0.5 - 0.5 * phase.cos()
    joints = math3d.quat_identity(FRAMES, 5)
    joints[:, 2] = math3d.rotvec_to_quat(torch.stack((0 * phase, 0.2 * phase.sin(), 0 * phase), 1))
    place = torch.tensor((1.0, 0, 0, 0, 0, 0, 0.6)).repeat(FRAMES, 1)
    place[:, 4:6] -= model.pivots[2, :2]
    motion = Motion(model.id, 25.0, expr, joints, place)
    K = torch.tensor(((2.0 * SIZE, 0, SIZE / 2), (0, 2.0 * SIZE, SIZE / 2), (0, 0, 1)))
    mesh = model.shaped(identity).posed(motion)
    images, mattes = [], []
    for verts in mesh.verts:
        hits = rasterize(verts.numpy(), mesh.faces.numpy(), K.numpy(), (SIZE, SIZE))
        corners = model.template[mesh.faces[hits.face_ids]]
        paint = 0.5 + 0.4 * torch.sin(40 * (corners * torch.from_numpy(hits.bary)[..., None]).sum(2))
        there = torch.from_numpy(hits.face_ids >= 0)
        images.append((torch.where(there[..., None], paint, 0.8) * 255).byte().numpy())
        mattes.append(there.numpy().astype(np.uint8) * 255)
    media.write_video(clip_path, images, 25.0)
    return Track(
        clip=Clip(clip_path, 25.0, FRAMES, SIZE, SIZE, None),
        frame_ids=torch.arange(FRAMES),
        crop_px=(0, 0, SIZE, SIZE),
        cameras=Cameras(torch.eye(4)[None], K[None], SIZE, SIZE),
        identity=identity,
        motion=motion,
        landmarks_px=math3d.project(model.landmarks(mesh.verts), K),
        found=torch.ones(FRAMES, dtype=torch.bool),
        error_pct=torch.zeros(FRAMES),
        images=np.stack(images),
        mattes=np.stack(mattes),
        plate=torch.full((SIZE, SIZE, 3), 0.8),
    )
