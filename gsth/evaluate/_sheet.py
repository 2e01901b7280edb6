"""A picture to judge an avatar by."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from gsth import math3d, media, metrics, provenance, render
from gsth.evaluate import _subject
from gsth.evaluate._pictures import reference_picture, resized
from gsth.metrics import Box, Picture
from gsth.types import Cameras, Clip, Motion

if TYPE_CHECKING:
    from gsth.avatar import Avatar

SIDE_RAD = 0.4
TURNTABLE_RAD = math.pi / 2
"""The turntable goes so far to either side, in even steps."""
TURNTABLE_ROWS = 2
CELL_PX = 320
DIFFERENCE_GAIN = 3
NEVER_MADE: tuple[dict[str, float], ...] = (
    {"jawOpen": 1.0},
    {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "jawOpen": 0.15},
    {"mouthPucker": 1.0},
    {"mouthFunnel": 1.0, "jawOpen": 0.3},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    {"browInnerUp": 1.0, "eyeWideLeft": 1.0, "eyeWideRight": 1.0},
    {"cheekPuff": 1.0, "mouthPressLeft": 1.0, "mouthPressRight": 1.0},
    {"mouthLeft": 1.0, "browDownLeft": 1.0, "browDownRight": 1.0},
)
"""Expressions at full strength, which hardly anybody makes on film."""


def sheet(avatar: Avatar, clip: Clip, out: Path, columns: int = 4) -> None:
    """Write a picture sheet, frames spread over the held-out part.

    Rows, from the top: the film, the avatar with motion from tracking alone, their difference (three times), mouths of
    film and avatar, the avatar from 23 degrees to either side, a turntable (two rows) from 90 degrees on one side to 90
    on the other, expressions never made.
    """
    source = avatar.source
    first, last = source.train_frames, len(source.frame_ids) - 1
    chosen = [round(first + (last - first) * k / max(columns - 1, 1)) for k in range(columns)]
    motion = _subject.tracked_motion(avatar)
    draw = _subject.Drawer(avatar)
    size = avatar.cameras.width, avatar.cameras.height
    film = []
    for t in chosen:
        frame = int(source.frame_ids[t])
        film.append(reference_picture(next(iter(media.frames(clip, frame, frame + 1))), source.crop_px, *size))
    mine = [draw(motion, t) for t in chosen]
    mouths = [_mouth(avatar, motion[t]) for t in chosen]
    rows = [film, mine, [_difference(a, b) for a, b in zip(film, mine, strict=True)]]
    rows += [[_cell(metrics.cut(p, box)) for p, box in zip(row, mouths, strict=True)] for row in (film, mine)]
    rows += [[_seen(avatar, motion[t], avatar.around(motion[t], yaw)) for t in chosen] for yaw in (-SIDE_RAD, SIDE_RAD)]
    rest = motion[chosen[len(chosen) // 2]]
    turns = np.linspace(-TURNTABLE_RAD, TURNTABLE_RAD, TURNTABLE_ROWS * columns).tolist()
    turned = [_seen(avatar, rest, avatar.around(rest, yaw)) for yaw in turns]
    rows += [turned[k : k + columns] for k in range(0, len(turned), columns)]
    faces = [_seen(avatar, _with(avatar, rest, made), avatar.cameras) for made in NEVER_MADE]
    rows += [faces[k : k + columns] for k in range(0, len(faces) // columns * columns, columns)]
    whole = np.concatenate([np.concatenate([_cell(p) for p in row], 1) for row in rows], 0)
    provenance.write_image(out, whole, provenance.about([avatar.meta]), provenance.STAMPED)


def _with(avatar: Avatar, motion: Motion, made: dict[str, float]) -> Motion:
    """A frame's pose with an expression of its own."""
    names = avatar.head.expression_names
    expr = torch.zeros_like(motion.expr)
    for name, value in made.items():
        if name in names:
            expr[:, names.index(name)] = value
    return motion.replace(expr=expr)


def _mouth(avatar: Avatar, motion: Motion) -> Box:
    """A square around the mouth of the tracked mesh, of one frame."""
    points = math3d.project(avatar.head.landmarks(avatar.shaped.posed(motion).verts)[0], avatar.cameras.Ks[0])
    size = avatar.cameras.width, avatar.cameras.height
    return _square(metrics.mouth_box(points.double().numpy(), *size), *size)


def _seen(avatar: Avatar, motion: Motion, camera: Cameras) -> Picture:
    """From any side, before plain grey: the plate belongs to the training camera alone."""
    with torch.no_grad():
        drawn = render.render(avatar.pose(motion), camera, background=torch.full((3,), 0.5))
    return np.asarray((drawn.rgb[0].clamp(0, 1) * 255).round().byte().cpu().numpy())


def _difference(a: Picture, b: Picture) -> Picture:
    error = DIFFERENCE_GAIN * np.abs(a.astype(np.int16) - b)
    return error.clip(0, 255).astype(np.uint8)


def _square(box: Box | None, width: int, height: int) -> Box:
    """The smallest square around a box that lies in the picture; the picture itself where there is no box."""
    if box is None:
        return (0, 0, width, height)
    x0, y0, x1, y1 = box
    side = min(max(x1 - x0, y1 - y0), width, height)
    x, y = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    x, y = min(max(x, 0), width - side), min(max(y, 0), height - side)
    return (x, y, x + side, y + side)


def _cell(picture: Picture) -> Picture:
    return resized(picture, CELL_PX, CELL_PX)
