"""One avatar speaking: the person's voice, the steps of a sound, cues and idle life come together as Motion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gsth import audio, media, speech
from gsth.drive import Sound, _cues, _emotion, _person
from gsth.drive._config import Manner
from gsth.drive._cues import Cues
from gsth.drive._idle import Idle
from gsth.drive._speech_net import NAMES, PictureClock
from gsth.drive._stream import Steps, StepStream

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.types import Motion

SOUND_RATE = 48_000
"""Of sound that is read to be heard, Hz."""
_PIECE = round(0.2 * audio.RATE)
_BROWS = {"browInnerUp": 0.22, "browOuterUpLeft": 0.16, "browOuterUpRight": 0.16}
"""How far a fully accented syllable raises the brows."""
_NOD_RAD = 0.028
"""How far it lowers the head."""


class LiveSpeech:
    """Speaks while the sound comes in: samples of any number in, frames out; the same frames for any pieces."""

    def __init__(self, avatar: Avatar, manner: Manner, cues: Cues | None = None, level_db: float | None = None) -> None:
        """Prepare an avatar.

        Args:
            avatar: Who speaks.
            manner: How.
            cues: What is known besides the sound.
            level_db: Level of the speech, dB of full scale; None estimates it while listening.

        Raises:
            InputError: The avatar's head model has no ARKit mouth shapes.
        """
        cues = cues or Cues()
        self._voice = _person.voice_of(avatar)
        self._fps, self._manner, self._cues = avatar.motion.fps, manner, cues
        names = avatar.head.expression_names
        self._brows = {names.index(n): v for n, v in _BROWS.items() if n in names}
        known = avatar.motion[: max(avatar.source.train_frames, 1)]
        self._idle = Idle(known, names, manner.seed, manner.idle)
        moods = cues.moods or _emotion.moods(manner.emotion)
        self._feeling = _emotion.Feeling.of(moods, avatar.head, _person.opening_weights(avatar.head))
        self._steps = StepStream(self._voice.net, level_db)
        self._clock = PictureClock(self._fps)
        self._hears = avatar.field is not None
        self._samples = self._frames = 0

    def push(self, samples: np.ndarray | Tensor) -> Motion | None:
        """Hear mono 16 kHz samples [s]; the frames that became known, None where there is none yet."""
        self._samples += len(samples)
        return self._moved(self._clock.push(self._steps.push(samples).joined()))

    def finish(self) -> Motion | None:
        """The remaining frames: every picture that the sound reaches into."""
        total = audio.frames_of(self._samples, self._fps)
        last = self._clock.push(self._steps.finish().joined())
        return self._moved(torch.cat((last, self._clock.finish(total)))[: total - self._frames])

    def _moved(self, pictures: Tensor) -> Motion | None:
        """Motion of pictures' joined steps [t width + 2]."""
        count = len(pictures)
        if count == 0:
            return None
        steps = Steps(pictures[:, :-2], pictures[:, -2:-1], pictures[:, -1:])
        times = (torch.arange(self._frames, self._frames + count) + 0.5) / self._fps
        manner = self._manner
        effort = self._feeling.mouth(times) * _cues.effort(self._cues.emphases, times)
        amount = manner.expressiveness * steps.awake * effort
        expr = self._voice.expressions(steps.hidden, amount, self._known(count))
        accent = steps.accent * steps.awake * manner.expressiveness
        for i, rise in self._brows.items():
            expr[:, i] = (expr[:, i] + rise * accent[:, 0]).clamp(0, 1)
        nod = _NOD_RAD * manner.idle.sway * accent[:, 0] + self._feeling.nod(times)
        motion = self._idle.frames(self._frames, count, self._fps, self._feeling.shown(expr, times), nod)
        self._frames += count
        return motion.replace(audio=steps.hidden) if self._hears else motion

    def _known(self, count: int) -> Tensor | None:
        """The general curves of the next pictures, where phonemes are known, [t 20]."""
        if not self._cues.phonemes:
            return None
        start = self._frames / self._fps
        near = [
            replace(p, start_s=p.start_s - start, end_s=p.end_s - start)
            for p in self._cues.phonemes
            if p.end_s > start - 1 and p.start_s < start + count / self._fps + 1
        ]
        return speech.visemes(near, self._fps, count, NAMES)


@dataclass(frozen=True, eq=False)
class SpeechDriver:
    """Speaks one sound with one avatar.

    The motion has ``gsth.audio.frames_of`` frames: every picture that the sound reaches into. Frame i shows the time
    (i + 0.5) / fps and hears at most ``LOOK_AHEAD_S`` past it. The level of the speech is measured on the whole sound
    first, so that loudness does not open the mouth. Head and torso keep the person's mean pose of the training part,
    with a slow sway of neck and head inside the range that was tracked.
    """

    avatar: Avatar
    samples: np.ndarray | Path
    """Mono, 16 kHz, [s]; not silence. A file is read twice, piece by piece, so that it may last for hours."""
    manner: Manner
    heard: Sound | Path
    """The same as it is to be heard; read from its file only when it is asked for."""
    cues: Cues = field(default_factory=Cues)

    def __post_init__(self) -> None:
        _person.check(self.avatar)
        _emotion.moods(self.manner.emotion)

    @property
    def sound(self) -> Sound:
        """What the avatar says."""
        if isinstance(self.heard, Path):
            return Sound(media.sound(self.heard, SOUND_RATE), SOUND_RATE)
        return self.heard

    def stream(self) -> Iterator[Motion]:
        """Pieces of about 200 ms, each as soon as the sound for it was heard."""
        level, _ = audio.measured(self._pieces())
        live = LiveSpeech(self.avatar, self.manner, self.cues, level)
        for piece in _even(self._pieces()):
            if (motion := live.push(piece)) is not None:
                yield motion
        if (motion := live.finish()) is not None:
            yield motion

    def _pieces(self) -> Iterator[np.ndarray]:
        return media.sound_pieces(self.samples, audio.RATE) if isinstance(self.samples, Path) else iter((self.samples,))


def _even(pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Pieces of any length as pieces of ``_PIECE`` samples, the last one shorter."""
    held = np.zeros(0, np.float32)
    for piece in pieces:
        held = np.concatenate((held, piece)) if len(held) else piece
        whole = len(held) // _PIECE * _PIECE
        yield from held[:whole].reshape(-1, _PIECE)
        held = held[whole:]
    yield held
