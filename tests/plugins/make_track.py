"""Writes a tiny track of the synthetic actor, from what is known about it: ``python make_track.py FOLDER``.

Nothing is tracked, so mediapipe, which cannot be installed beside nerfstudio, is not needed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from gsth import artifacts, media, synth
from gsth.types import Clip, Track


def wall(images: np.ndarray) -> np.ndarray:
    """What stands behind the actor [h w 3]: a smooth surface through the upper border of the pictures [t h w 3]."""
    side = images.shape[1]
    y, x = np.mgrid[:side, :side] / side - 0.5
    terms = np.stack((np.ones_like(x), x, y, x * x, y * y, x * y, (x * x + y * y) ** 2), -1)
    border = (y < 0.1) & ((np.abs(x) > 0.42) | (y < -0.44))
    return terms @ np.linalg.lstsq(terms[border], images.mean(0)[border], rcond=None)[0]


def main(folder: Path, seconds: float = 0.8, size: int = 96) -> None:
    actor = synth.actor(synth.SynthConfig(seconds=seconds, size=size))
    truth, count = actor.truth, len(actor.truth.motion)
    images = np.stack([actor.frame(i) for i in range(count)])
    away = np.abs(images - wall(images)).max(-1)
    clip = folder.with_suffix(".mp4")
    media.write_video(clip, images, 25.0)
    track = Track(
        clip=Clip(clip.absolute(), 25.0, count, size, size, None),
        frame_ids=torch.arange(count),
        crop_px=(0, 0, size, size),
        cameras=truth.cameras,
        identity=truth.identity,
        motion=truth.motion,
        landmarks_px=truth.landmarks_px,
        found=torch.ones(count, dtype=torch.bool),
        error_pct=torch.zeros(count),
        images=images,
        mattes=np.where(away > 25, 255, 0).astype(np.uint8),
        plate=None,
    )
    artifacts.save(track, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
