"""A driver: nods and opens the mouth on every beat."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.drive import Sound
    from gsth.types import Motion


@dataclass(frozen=True)
class Config:
    """Keeps time."""

    bpm: float = 120.0
    """Beats per minute."""
    seconds: float = 4.0
    """How long."""

    def __post_init__(self) -> None:
        if not 1 <= self.bpm <= 600:
            raise InputError(f"--bpm is {self.bpm}; it must be 1 to 600")

    def build(self, avatar: Avatar) -> Metronome:
        """The driver of one avatar."""
        return Metronome(self, avatar)


class Metronome:
    """Moves one avatar's head; see ``gsth.drive.Driver``."""

    sound: Sound | None = None

    def __init__(self, config: Config, avatar: Avatar) -> None:
        """Take settings and the avatar."""
        self._config, self._avatar = config, avatar

    def stream(self) -> Iterator[Motion]:
        """One beat at a time, as a live driver would: what is known is passed on at once."""
        import torch

        from gsth import math3d
        from gsth.head import JOINTS

        head, known = self._avatar.head, self._avatar.motion
        count = round(self._config.seconds * known.fps)
        swing = 0.5 - 0.5 * torch.cos(torch.arange(count) / known.fps * self._config.bpm / 60 * 2 * math.pi)
        expr = torch.zeros(count, len(head.expression_names))
        expr[:, head.expression_names.index("jawOpen")] = 0.6 * swing
        joints = known.joints[:1].repeat(count, 1, 1)
        nod = math3d.rotvec_to_quat(torch.stack((0.15 * swing, 0 * swing, 0 * swing), 1))
        skull = JOINTS.index("head")
        joints[:, skull] = math3d.quat_mul(joints[:, skull], nod)
        place = known.T_world_head[:1].repeat(count, 1)
        whole = known.replace(expr=expr, joints=joints, T_world_head=place, audio=None)
        beat = max(1, round(known.fps * 60 / self._config.bpm))
        for start in range(0, count, beat):
            yield whole[start : start + beat]
