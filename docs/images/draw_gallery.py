"""Draws the pictures of docs/gallery.md, and the README's first, from what ``gsth demo --out DEMO`` wrote.

The actor is synthetic.

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
from gsth.evaluate._pictures import resized
from gsth.evaluate._sheet import CELL_PX
from gsth.types import Motion

HERE = Path(__file__).parent
SIDE_PX = 224
YAWS_DEG = (-40.0, -20.0, 0.0, 20.0, 40.0)
TURN_DEG = ((-90.0, -64.0, -39.0, -13.0), (13.0, 39.0, 64.0, 90.0))
FACES = {
    "at rest": {},
    "jawOpen": {"jawOpen": 0.7},
    "mouthSmile": {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9},
    "mouthPucker": {"mouthPucker": 0.9},
    "eyeBlink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
}
SPOKEN = 5
SHEET_ROWS, SHEET_PX = (0, 1, 5, 6), 256
"""Of the demo's sheet, the README shows the film, the avatar, and both sides."""


def drawn(avatar: Avatar, motion: Motion, yaw_deg: float = 0.0) -> np.ndarray:
    """One frame from so far to the side, uint8 [h w 3]."""
    cameras = avatar.around(motion, math.radians(yaw_deg))
    scale = SIDE_PX / cameras.height
    K = cameras.Ks * torch.tensor((scale, scale, 1.0))[:, None]
    cameras = dataclasses.replace(cameras, Ks=K, width=SIDE_PX, height=SIDE_PX)
    with torch.no_grad():
        rgb = render.render(avatar.pose(motion), cameras, background=torch.full((3,), 0.85)).rgb[0]
    return (rgb.clamp(0, 1) * 255).round().byte().numpy()


def of_sheet(sheet: np.ndarray) -> np.ndarray:
    """Some rows of a picture sheet, smaller."""
    rows = [sheet[k * CELL_PX : (k + 1) * CELL_PX] for k in SHEET_ROWS]
    return np.concatenate([resized(row, row.shape[1] * SHEET_PX // CELL_PX, SHEET_PX) for row in rows], 0)


def write(name: str, picture: np.ndarray, avatar: Avatar) -> None:
    """Write a picture, with all that gsth puts into pictures."""
    provenance.write_image(HERE / name, picture, provenance.about([avatar.meta]), provenance.STAMPED)
    print(HERE / name)


def main(demo: Path) -> None:
    """Draw the strips, the turntable and the README's first picture."""
    avatar = Avatar.load(demo / "actor.avatar")
    middle = avatar.motion[len(avatar.motion) // 3]
    write("gallery_sides.jpg", np.concatenate([drawn(avatar, middle, yaw) for yaw in YAWS_DEG], 1), avatar)
    turned = [np.concatenate([drawn(avatar, middle, yaw) for yaw in row], 1) for row in TURN_DEG]
    write("gallery_turntable.jpg", np.concatenate(turned, 0), avatar)
    names, faces = avatar.head.expression_names, []
    for weights in FACES.values():
        expr = torch.zeros_like(middle.expr)
        for name, weight in weights.items():
            expr[0, names.index(name)] = weight
        faces.append(drawn(avatar, middle.replace(expr=expr)))
    write("gallery_faces.jpg", np.concatenate(faces, 1), avatar)
    clip = media.probe(demo / "demo.mp4")
    chosen = {round(clip.frames * (i + 1) / (SPOKEN + 1)) for i in range(SPOKEN)}
    spoken = [picture for i, picture in enumerate(media.frames(clip)) if i in chosen]
    write("gallery_speech.jpg", np.concatenate(spoken, 1), avatar)
    write("demo.png", of_sheet(media.read_image(demo / "sheet.png")), avatar)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
