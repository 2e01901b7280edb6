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
        from gsth.audio import RATE, speech_level
        from gsth.drive._speaking import SpeechDriver

        samples = media.sound(self.wav, RATE)
        if len(samples) < _MIN_S * RATE:
            raise InputError(f"{self.wav}: its sound lasts {len(samples) / RATE:.3f} s; want at least {_MIN_S} s")
        if not math.isfinite(speech_level(samples)):
            raise InputError(f"{self.wav}: its sound is silence throughout; want speech, check the recording level")
        return SpeechDriver(avatar, samples, self.manner, self.wav)
