"""Drive an avatar by recorded motion: an artifact folder, an npz of arrays, or face curves of other tools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from gsth.avatar import Avatar
    from gsth.drive import Sound
    from gsth.types import Motion

_NECK, _HEAD = 1, 2
_TURNED = [2, 3, 4]
"""Joints that curves turn: head, left and right eye, by ``gsth.head.JOINTS`` (which would bring torch)."""
_PIECE = 32
"""Frames that are passed on at a time."""


@dataclass(frozen=True)
class Config:
    """Motion from a file: a Motion or Track artifact, a Live Link Face CSV, a 52-weight JSON, or an npz.

    The npz holds ``expr`` [t e] (0 to 1, with ``names`` [e], expression names; others stay at 0) and ``fps``;
    ``joints`` [t 5 4] and ``T_world_head`` [t 7] may be left out: then the head keeps the person's mean pose.
    """

    path: Path
    """Folder or file to play."""
    wav: Path | None = None
    """Sound to go with it."""

    def build(self, avatar: Avatar) -> MotionDriver:
        """Read the motion.

        Raises:
            InputError: It is missing, of another head model, or its arrays do not fit.
        """
        if not self.path.exists():
            raise InputError(f"{self.path}: there is no such file or folder; want a Motion artifact, CSV, JSON or npz")
        motion = _from_file(self.path, avatar) if self.path.is_file() else _from_artifact(self.path)
        if motion.head != avatar.head.id:
            raise InputError(
                f"{self.path}: the motion is for head {motion.head}, the avatar stands on {avatar.head.id}; "
                "track the clip again with that head, or drive the avatar from audio"
            )
        if len(motion) == 0:
            raise InputError(f"{self.path}: the motion has no frames")
        return MotionDriver(motion, self.wav)


class MotionDriver:
    """Plays a Motion as it is."""

    def __init__(self, motion: Motion, wav: Path | None) -> None:
        """Take a motion of at least one frame."""
        self._motion, self._wav = motion, wav

    @property
    def sound(self) -> Sound | None:
        """The sound that goes with it."""
        from gsth import media
        from gsth.drive import Sound
        from gsth.drive._speaking import SOUND_RATE

        return None if self._wav is None else Sound(media.sound(self._wav, SOUND_RATE), SOUND_RATE)

    def stream(self) -> Iterator[Motion]:
        """Pieces of 32 frames."""
        for start in range(0, len(self._motion), _PIECE):
            yield self._motion[start : start + _PIECE]


def _from_artifact(folder: Path) -> Motion:
    from gsth import artifacts
    from gsth.types import Motion, Track

    if artifacts.is_kind(folder, "track"):
        return artifacts.load(Track, folder).motion
    return artifacts.load(Motion, folder)


def _from_file(path: Path, avatar: Avatar) -> Motion:
    return _from_curves(path, avatar) if path.suffix.lower() in (".csv", ".json") else _from_npz(path, avatar)


def _from_curves(path: Path, avatar: Avatar) -> Motion:
    import torch

    from gsth.drive import _curves

    curves = _curves.read(path)
    names = avatar.head.expression_names
    if missing := [n for n in curves.names if n not in names]:
        raise InputError(f"{path}: the head model has no expression {missing[0]!r}; it has {', '.join(names)}")
    expr = torch.zeros(len(curves.values), len(names))
    expr[:, [names.index(n) for n in curves.names]] = curves.values.clamp(0, 1)
    return posed(expr, curves.turns, avatar, curves.fps)


def posed(expr: Tensor, turns: Tensor | None, avatar: Avatar, fps: float) -> Motion:
    """Expressions [t e] on the avatar's mean pose; ``turns`` [t 3 4] turn skull and eyes from it."""
    import torch

    from gsth.math3d import mean_placement, mean_rotation, quat_mul
    from gsth.types import Motion

    known, count = avatar.motion, len(expr)
    joints = torch.stack([mean_rotation(known.joints[:, j]) for j in range(known.joints.shape[1])]).repeat(count, 1, 1)
    if turns is not None:
        joints[:, _TURNED] = quat_mul(joints[:, _TURNED], turns)
    return Motion(avatar.head.id, fps, expr, joints, mean_placement(known.T_world_head).repeat(count, 1))


def turns_of(motion: Motion, avatar: Avatar) -> Tensor:
    """What ``posed`` takes: how skull and eyes are turned from the avatar's mean pose, [t 3 4]."""
    import torch

    from gsth.math3d import mean_rotation, quat_conj, quat_mul

    mean = torch.stack([mean_rotation(avatar.motion.joints[:, j]) for j in range(motion.joints.shape[1])])
    turns = quat_mul(quat_conj(mean[_TURNED]), motion.joints[:, _TURNED])
    # The head's turn is that of the whole skull: neck and head joint together.
    skull = quat_mul(mean[_NECK], mean[_HEAD])
    turns[:, 0] = quat_mul(quat_conj(skull), quat_mul(motion.joints[:, _NECK], motion.joints[:, _HEAD]))
    return turns


def _from_npz(path: Path, avatar: Avatar) -> Motion:
    import numpy as np
    import torch

    from gsth.head import restricted
    from gsth.math3d import mean_placement, mean_rotation
    from gsth.types import Motion

    arrays = restricted.unpacked(path)
    if missing := {"expr", "names", "fps"} - arrays.keys():
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; found {', '.join(sorted(arrays)) or 'nothing'}")
    numeric = {"expr", "fps", "joints", "T_world_head"} & arrays.keys()
    if wrong := [n for n in sorted(numeric) if arrays[n].dtype.kind not in "fiu" or not np.isfinite(arrays[n]).all()]:
        raise InputError(f"{path}: {wrong[0]} must hold finite numbers, got {arrays[wrong[0]].dtype}")
    if arrays["names"].ndim != 1 or arrays["fps"].size != 1 or not 0 < arrays["fps"].item() <= 1000:
        raise InputError(f"{path}: want names [e], and fps as one number from 0 to 1000")
    given, names = torch.from_numpy(arrays["expr"].astype(np.float32)), [str(n) for n in arrays["names"]]
    order = {n: i for i, n in enumerate(avatar.head.expression_names)}
    if unknown := [n for n in names if n not in order]:
        raise InputError(f"{path}: the head model has no expression {unknown[0]!r}; it has {', '.join(order)}")
    if given.ndim != 2 or given.shape[1] != len(names) or not bool(torch.isfinite(given).all()):
        raise InputError(f"{path}: expr is {list(given.shape)}; want [frames, {len(names)}], all finite")
    expr = torch.zeros(len(given), len(order))
    expr[:, [order[n] for n in names]] = given.clamp(0, 1)
    known = avatar.motion
    joints = torch.stack([mean_rotation(known.joints[:, j]) for j in range(known.joints.shape[1])])
    poses = {"joints": joints, "T_world_head": mean_placement(known.T_world_head)}
    placed = {
        n: torch.from_numpy(arrays[n].astype(np.float32)) if n in arrays else mean.expand(len(given), *mean.shape)
        for n, mean in poses.items()
    }
    return Motion(avatar.head.id, arrays["fps"].item(), expr, **placed)
