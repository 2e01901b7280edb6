"""Views that no camera filmed: known only for clips of the synthetic actor, whose truth lies beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from gsth import artifacts, math3d, render, synth
from gsth.errors import InputError
from gsth.evaluate import _subject
from gsth.evaluate._config import EvalConfig
from gsth.evaluate._measures import Figures
from gsth.evaluate._pictures import reference_picture
from gsth.evaluate._score import Reference, Row
from gsth.evaluate._tools import Tools
from gsth.types import Clip, Event, Step

if TYPE_CHECKING:
    from gsth.avatar import Avatar

YAWS_DEG = (-30, -20, 20, 30)
MOMENTS = 3
"""Frames of the held-out part that are seen from every side."""


def novel_views(
    avatar: Avatar, clip: Clip, frames: list[int], config: EvalConfig
) -> Iterator[Event | dict[str, Figures]]:
    """Score the avatar from the side; yields events, then rows ``view_<degrees>``.

    Raises:
        InputError: The clip is not a film of the synthetic actor.
    """
    actor = _actor(clip)
    moments = [frames[i] for i in np.linspace(0, len(frames) - 1, MOMENTS + 2).round().astype(int)[1:-1]]
    motion, rows, done = _subject.tracked_motion(avatar), {}, 0
    with Tools(dataclasses.replace(config, weights=None)) as tools:
        for yaw_deg in YAWS_DEG:
            row, yaw_rad = Row(tools), float(np.radians(yaw_deg))
            for t in moments:
                moment = int(avatar.source.frame_ids[t])
                joint = math3d.transform_points(actor.truth.motion.T_world_head[moment], actor.shaped.pivots[2])
                camera = actor.truth.cameras.replace(viewmats=math3d.orbit(joint, yaw_rad)[None])
                size = avatar.cameras.width, avatar.cameras.height
                seen = reference_picture(actor.render_view(moment, camera), avatar.source.crop_px, *size)
                with torch.no_grad():
                    around = avatar.around(motion[t], yaw_rad)
                    drawn = render.render(avatar.pose(motion[t]), around, background=avatar.background())
                picture = (drawn.rgb[0].clamp(0, 1) * 255).round().byte().numpy()
                row.see(picture, Reference(seen, tools, slow=True))
                done += 1
                yield Step("views", done, len(YAWS_DEG) * len(moments))
            rows[f"view_{yaw_deg:+d}"] = row.scattered()
    yield rows


def _actor(clip: Clip) -> synth.Actor:
    folder = synth.truth_folder(clip.path)
    if not artifacts.is_kind(folder, "truth"):
        raise InputError(
            f"{clip.path}: no camera filmed it from the side (there is no {folder.name} beside it); leave out --views"
        )
    config = artifacts.read_meta(folder, "truth")["config"]
    return synth.actor(synth.SynthConfig(**config))
