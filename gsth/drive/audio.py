"""Drive an avatar by speech: a sound file in, Motion out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.drive._config import IdleConfig
from gsth.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from gsth.avatar import Avatar
    from gsth.types import Motion

_MIN_S = 0.1
_LEAD_S = 0.16
"""The mouth opens this long before it is heard, and closes this long after."""
_PIECE_COLUMNS = 20
"""Sound that the driver takes at a time: 200 ms."""


@dataclass(frozen=True)
class Config:
    """Speech from a sound file (wav, flac, mp3, or the sound of a video)."""

    wav: Path
    """The file to speak."""
    seed: int = 0
    """Of blinks, glances and head sway; the mouth does not depend on it."""
    expressiveness: float = 1.0
    """Factor on the mouth's movements away from rest."""
    idle: IdleConfig = field(default_factory=IdleConfig)
    """Blinks, gaze and head motion."""

    def __post_init__(self) -> None:
        if not 0 <= self.expressiveness <= 2:
            raise InputError(f"expressiveness is {self.expressiveness}; it must be 0 to 2")

    def build(self, avatar: Avatar) -> SpeechDriver:
        """Read the file and prepare the avatar's voice.

        Raises:
            InputError: The file is missing, no sound, shorter than 0.1 s, or silent throughout; or the avatar's head
                model has no ARKit mouth shapes.
        """
        from gsth import media
        from gsth.audio import RATE, speech_level

        samples = media.sound(self.wav, RATE)
        if len(samples) < _MIN_S * RATE:
            raise InputError(f"{self.wav}: its sound lasts {len(samples) / RATE:.3f} s; want at least {_MIN_S} s")
        if not math.isfinite(speech_level(samples)):
            raise InputError(f"{self.wav}: its sound is silence throughout; want speech, check the recording level")
        return SpeechDriver(avatar, samples, self)


class SpeechDriver:
    """Speaks one sound with one avatar.

    The motion has ``gsth.audio.frames_of`` frames: every picture that the sound reaches into. Frame i shows the time
    (i + 0.5) / fps and hears at most ``LOOK_AHEAD_S`` past it. The level of the speech is measured on the whole sound
    first, so that loudness does not open the mouth. Head and torso keep the person's mean pose of the training part,
    with a slow sway of neck and head inside the range that was tracked.
    """

    def __init__(self, avatar: Avatar, samples: np.ndarray, config: Config) -> None:
        """Take mono 16 kHz samples that are not silence."""
        from gsth.drive import _person

        self._avatar, self._samples, self._config = avatar, samples, config
        self._voice = _person.voice_of(avatar)

    def stream(self) -> Iterator[Motion]:
        """Pieces of about 200 ms, each as soon as the sound for it was heard."""
        from gsth.drive._idle import Idle

        avatar, config = self._avatar, self._config
        known = avatar.motion[: max(avatar.source.train_frames, 1)]
        idle = Idle(known, avatar.head.expression_names, config.seed, config.idle)
        done = 0
        for expr, heard in self._expressions():
            piece = idle.frames(done, len(expr), avatar.motion.fps, expr)
            yield piece if avatar.field is None else piece.replace(audio=heard)
            done += len(expr)

    def _expressions(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Expressions [t e] and hidden states [t width] at the avatar's rate, piece by piece, never empty."""
        import torch

        from gsth import audio
        from gsth.drive._speech_net import HiddenStream, PictureClock

        fps = self._avatar.motion.fps
        total, done = audio.frames_of(len(self._samples), fps), 0
        amount = self._config.expressiveness * _awake(audio.activity(self._samples, fps, total), fps)
        net, clock = HiddenStream(self._voice.net), PictureClock(fps)
        for piece in audio.log_mel(self._samples).split(_PIECE_COLUMNS):
            hidden = clock.push(net.push(piece))[: total - done]
            if len(hidden):
                yield self._voice.expressions(hidden, amount[done : done + len(hidden)]), hidden
            done += len(hidden)
        hidden = torch.cat((clock.push(net.finish()), clock.finish(total)))[: total - done]
        if len(hidden):
            yield self._voice.expressions(hidden, amount[done : done + len(hidden)]), hidden


def _awake(activity: Tensor, fps: float) -> Tensor:
    """How far the mouth may leave its rest in each picture, 0 to 1, [t 1].

    1 from ``_LEAD_S`` before speech until as long after it, 0 in silence and noise, smooth between: what the network
    makes of a breath or a hum must not move lips that have nothing to say.
    """
    import torch

    reach = max(1, round(_LEAD_S * fps))
    wide = torch.nn.functional.max_pool1d((activity > 0.05).float()[None, None], 2 * reach + 1, 1, reach)
    ramp = torch.nn.functional.avg_pool1d(wide, 2 * (reach // 2) + 1, 1, reach // 2, count_include_pad=False)[0, 0]
    return (ramp * ramp * (3 - 2 * ramp))[:, None]
