"""Drive an avatar by another person's video: track it, carry the motion over."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gsth.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from gsth.avatar import Avatar
    from gsth.drive.motion import MotionDriver
    from gsth.types import Motion

_SIZE = 256
"""Pixels of the crop that is tracked; landmarks are found in the whole frame all the same."""


@dataclass(frozen=True)
class Config:
    """Motion of another person's video: expressions neutral to neutral and span to span."""

    path: Path
    """A video with one face, or a Track artifact of it (then nothing is tracked again)."""
    pose: Literal["relative", "absolute", "none"] = "relative"
    """Head pose: turns from the mean as the source's, or the source's very pose, or the avatar's mean, still."""
    gain: float = 1.0
    """Factor on the expressions' way from rest, 0 to 2."""

    def __post_init__(self) -> None:
        if not 0 <= self.gain <= 2:
            raise InputError(f"gain is {self.gain}; it must be 0 to 2")

    def build(self, avatar: Avatar) -> MotionDriver:
        """Track the video.

        Raises:
            InputError: It cannot be tracked (see ``gsth track``), or was tracked with another head model.
            MissingExtraError: mediapipe is not installed.
        """
        from gsth.drive._retarget import Retarget
        from gsth.drive.motion import MotionDriver

        seen = _seen(self.path, avatar)
        motion, found = seen.motion, seen.found
        if motion.head != avatar.head.id:
            raise InputError(
                f"{self.path}: was tracked with head {motion.head}, the avatar stands on {avatar.head.id}; "
                "track it again with that head"
            )
        if not bool(found.any()):
            raise InputError(f"{self.path}: no frame shows a face")
        known = motion.replace(
            expr=motion.expr[found], joints=motion.joints[found], T_world_head=motion.T_world_head[found]
        )
        carry = Retarget.of(known, avatar, self.pose, self.gain)
        return MotionDriver(carry(motion), seen.wav)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What carrying a motion over needs of a track."""

    motion: Motion
    found: Tensor
    wav: Path | None


def _seen(path: Path, avatar: Avatar) -> _Seen:
    from gsth import artifacts, media, track
    from gsth.types import Track

    if path.is_dir():
        loaded = artifacts.load(Track, path)
        return _Seen(loaded.motion, loaded.found.bool(), loaded.clip.wav)
    clip = media.probe(path)
    config = track.TrackConfig(size=_SIZE, holdout=0.0, head=avatar.head.id.name, matte=False, report=False)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "track"
        for _ in track.track(clip, config, out):
            pass
        loaded = artifacts.load(Track, out)
        motion = loaded.motion
        # Copies, because the files behind the arrays go with the folder.
        copied = motion.replace(**{n: getattr(motion, n).clone() for n in ("expr", "joints", "T_world_head")})
        return _Seen(copied, loaded.found.bool().clone(), clip.wav)
