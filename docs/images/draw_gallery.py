"""Draws the pictures of docs/gallery.md from what ``gsth demo --out DEMO`` wrote; the actor is synthetic.

python docs/images/draw_gallery.py DEMO
"""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import torch

from gsth import media, provenance, render
from gsth.avatar import Avatar
from gsth.types import Motion

HERE = Path(__file__).parent
SIDE_PX = 224
YAWS_DEG = (-40.0, -20.0, 0.0, 20.0, 40.0)
FACES = {
    "at rest": {},
    "jawOpen": {"jawOpen": 0.7},
    "mouthSmile": {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9},
    "mouthPucker": {"mouthPucker": 0.9},
    "eyeBlink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
}
SPOKEN = 5


def drawn(avatar: Avatar, motion: Motion, yaw_deg: float = 0.0) -> np.ndarray:
    """One frame from so far to the side, uint8 [h w 3]."""
    cameras = avatar.around(motion, math.radians(yaw_deg))
    scale = SIDE_PX / cameras.height
    K = cameras.Ks * torch.tensor((scale, scale, 1.0))[:, None]
    cameras = dataclasses.replace(cameras, Ks=K, width=SIDE_PX, height=SIDE_PX)
    with torch.no_grad():
        rgb = render.render(avatar.pose(motion), cameras, background=torch.full((3,), 0.85)).rgb[0]
    return (rgb.clamp(0, 1) * 255).round().byte().numpy()


def write(name: str, pictures: list[np.ndarray], avatar: Avatar) -> None:
    """A strip, with all that gsth puts into pictures."""
    who = provenance.about([avatar.meta])
    provenance.write_image(HERE / f"{name}.jpg", np.concatenate(pictures, 1), who, provenance.STAMPED)
    print(HERE / f"{name}.jpg")


def main(demo: Path) -> None:
    """Draw all three strips."""
    avatar = Avatar.load(demo / "actor.avatar")
    middle = avatar.motion[len(avatar.motion) // 3]
    write("gallery_sides", [drawn(avatar, middle, yaw) for yaw in YAWS_DEG], avatar)
    names, faces = avatar.head.expression_names, []
    for weights in FACES.values():
        expr = torch.zeros_like(middle.expr)
        for name, weight in weights.items():
            expr[0, names.index(name)] = weight
        faces.append(drawn(avatar, middle.replace(expr=expr)))
    write("gallery_faces", faces, avatar)
    clip = media.probe(demo / "demo.mp4")
    chosen = {round(clip.frames * (i + 1) / (SPOKEN + 1)) for i in range(SPOKEN)}
    spoken = [picture for i, picture in enumerate(media.frames(clip)) if i in chosen]
    write("gallery_speech", spoken, avatar)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
