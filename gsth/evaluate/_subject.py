"""The avatar under examination: its frames, what moves it, its raw video, and the pictures that cost nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from gsth import artifacts, audio, media, render
from gsth.errors import InputError
from gsth.evaluate._config import EvalConfig
from gsth.evaluate._pictures import reference_picture
from gsth.evaluate._score import Talk
from gsth.evaluate._splits import test_frames
from gsth.types import Clip, Motion, Splats

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.metrics import Picture

TRAIN_SAMPLES = 8
"""Training frames, evenly spread, on which the generalisation gap and the person's embedding are measured."""

EYES = ("eyeBlink", "eyeLook", "eyeSquint", "eyeWide")
"""How the expressions of lids and gaze begin: scored by its own sound, an avatar has those of the track."""


def check_holdout(avatar: Avatar, path: Path) -> None:
    """Refuse an avatar that kept nothing to be scored on."""
    tracked, trained = len(avatar.source.frame_ids), avatar.source.train_frames
    if trained >= tracked:
        raise InputError(
            f"{path}: all {tracked} frames were trained on, none is left to score; train with a holdout above 0"
        )


def source_clip(avatar: Avatar, moved_to: Path | None) -> Clip:
    """The avatar's own clip, checked by its digest."""
    path = moved_to or avatar.source.clip_path
    if not path.exists():
        where = "does not exist" if moved_to else "is gone; name where the clip is now: --clip PATH"
        raise InputError(f"{path}: the clip that the avatar was trained on {where}")
    found = artifacts.sha256(path)
    if found != avatar.source.sha256:
        raise InputError(
            f"{path}: is not the clip that the avatar was trained on (sha256 {found[:12]}..., wanted "
            f"{avatar.source.sha256[:12]}...); name the original: --clip PATH"
        )
    return media.probe(path)


def scored_frames(avatar: Avatar, clip: Clip, config: EvalConfig, path: Path) -> list[int]:
    """Tracked frames that are scored: the held-out ones, or those of the split, none of which may have been trained on.

    Raises:
        InputError: Training saw a frame of the split's test part.
    """
    source = avatar.source
    held_out = range(source.train_frames, len(source.frame_ids))
    if config.split is None:
        return list(held_out)
    wanted = test_frames(config.split, clip)
    seen = sum(int(i) in wanted for i in source.frame_ids[: source.train_frames])
    if seen:
        raise InputError(
            f"{path}: training saw {seen} of the {len(wanted)} test frames of the split {config.split!r}; train it "
            f"with --track.holdout {len(wanted) / clip.frames:.6f}"
        )
    return [t for t in held_out if int(source.frame_ids[t]) in wanted]


def tracked_motion(avatar: Avatar) -> Motion:
    """The motion that tracking gave, before anything was fitted to the avatar."""
    return avatar.landmark_motion or avatar.motion


def self_driven(avatar: Avatar, clip: Clip) -> Motion:
    """The tracked pose, gaze and lids of every frame with the other expressions that the clip's own sound gives."""
    if clip.wav is None:
        raise InputError(f"{clip.path}: has no sound to drive the avatar; score it with --driven track")
    from gsth import drive
    from gsth.drive import audio as speech

    heard = drive.offline(speech.Config(wav=clip.wav).build(avatar))
    # The sound may end a little before the picture: its last frame is held.
    ids = avatar.source.frame_ids.clamp(max=len(heard) - 1)
    sound = None if heard.audio is None else heard.audio[ids]
    tracked = tracked_motion(avatar)
    # No sound tells when somebody blinks or where they look. Brows stay the sound's: they rise with what is stressed.
    eyes = torch.tensor([n.startswith(EYES) for n in avatar.head.expression_names])
    return tracked.replace(expr=torch.where(eyes, tracked.expr, heard.expr[ids]), audio=sound)


def talk_of(avatar: Avatar, clip: Clip, frames: list[int], *, spoken_only: bool) -> Talk:
    """What is heard in the scored frames; phonemes where the clip's truth is known (the synthetic actor's)."""
    ids = avatar.source.frame_ids[frames]
    bilabials = known_bilabials(clip.path, int(ids[0]), int(ids[-1]) + 1, clip.fps)
    if clip.wav is None:
        return Talk(clip.fps, bilabials=bilabials)
    sound = media.sound(clip.wav, audio.RATE)
    spoken, loudness = heard(sound, clip.fps, clip.frames)
    start = round(int(ids[0]) / clip.fps * audio.RATE)
    return Talk(clip.fps, spoken[ids] if spoken_only else None, bilabials, sound[start:], loudness[ids])


def heard(sound: NDArray[np.float32], fps: float, frames: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """In which frames something is said, and how loud the sound is in each, dB, both [t]."""
    spoken = (audio.activity(sound, fps, frames) >= 0.5).numpy()
    squares = torch.from_numpy(sound.astype(np.float64) ** 2)
    columns = squares[: len(squares) // audio.HOP * audio.HOP].reshape(-1, audio.HOP).mean(1, keepdim=True)
    power = audio.per_picture(columns, fps, frames)[:, 0].numpy()
    return spoken, 10 * np.log10(power + 1e-8)


def known_bilabials(clip: Path, first: int, stop: int, fps: float) -> tuple[tuple[int, int], ...] | None:
    """Frames of every p, b and m between two frames, counted from ``first``; None where the clip has no known truth."""
    from gsth import synth

    folder = synth.truth_folder(clip)
    if not artifacts.is_kind(folder, "truth"):
        return None
    spoken = artifacts.load(synth.Truth, folder).phonemes
    frames = (
        (round(a * fps) - first, max(round(a * fps) + 1, round(b * fps)) - first) for s, a, b in spoken if s in "pbm"
    )
    return tuple((a, b) for a, b in frames if a >= 0 and b <= stop - first)


def references(avatar: Avatar, clip: Clip) -> Iterator[Picture]:
    """The raw picture of every tracked frame, in order, in one pass over the video."""
    ids = avatar.source.frame_ids.tolist()
    wanted = set(ids)
    for i, frame in enumerate(media.frames(clip, ids[0], ids[-1] + 1), ids[0]):
        if i in wanted:
            yield reference_picture(frame, avatar.source.crop_px, avatar.cameras.width, avatar.cameras.height)


@dataclass
class Drawer:
    """Draws the avatar from its training camera, as it would be written: uint8 over its background; keeps the time."""

    avatar: Avatar
    seconds: list[float] = field(default_factory=list)

    def __call__(self, motion: Motion, t: int) -> Picture:
        """One frame of a motion, [h w 3]."""
        began = time.perf_counter()
        with torch.no_grad():
            splats: Splats = self.avatar.pose(motion[t])
            drawn = render.render(splats, self.avatar.cameras, background=self.avatar.background())
        picture: Picture = (drawn.rgb[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
        self.seconds.append(time.perf_counter() - began)
        return picture

    def latency_ms(self) -> float:
        """Median time of one frame, pose to 8-bit picture, batch 1; the first frame warms up and does not count."""
        return 1000 * float(np.median(self.seconds[1:] or self.seconds))


def nearest_frames(motion: Motion, trained: int, frames: list[int]) -> list[int]:
    """For each of the frames, the training frame whose expression and pose is nearest.

    Expressions count by their difference, turns in units of 0.1 rad, the place in units of 1 cm.
    """
    turns = torch.cat((motion.T_world_head[:, None, :4], motion.joints[:, 1:3]), 1)
    # the same rotation has two quaternions
    turns = turns * torch.where(turns[..., :1] < 0, -1.0, 1.0)
    values = torch.cat((motion.expr, 20 * turns.flatten(1), 100 * motion.T_world_head[:, 4:]), 1)
    return torch.cdist(values[frames], values[:trained]).argmin(1).tolist()
