"""Drive an avatar by speech: a sound file in, Motion out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.drive._config import Manner
from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.drive._speaking import SpeechDriver

_MIN_S = 0.1


@dataclass(frozen=True)
class Config:
    """Speech from a sound file (wav, flac, mp3, or the sound of a video)."""

    wav: Path
    """The file to speak."""
    manner: Manner = field(default_factory=Manner)
    """How it is said."""

    def build(self, avatar: Avatar) -> SpeechDriver:
        """Read the file and prepare the avatar's voice.

        Raises:
            InputError: The file is missing, no sound, shorter than 0.1 s, or silent throughout; or the avatar's head
                model has no ARKit mouth shapes.
        """
        from gsth import media
        from gsth.audio import RATE, measured
        from gsth.drive._speaking import SpeechDriver

        level_db, samples = measured(media.sound_pieces(self.wav, RATE))
        if samples < _MIN_S * RATE:
            raise InputError(f"{self.wav}: its sound lasts {samples / RATE:.3f} s; want at least {_MIN_S} s")
        if not math.isfinite(level_db):
            raise InputError(f"{self.wav}: its sound is silence throughout; want speech, check the recording level")
        return SpeechDriver(avatar, self.wav, self.manner, self.wav)
