"""Recording: what is shown is noted frame by frame, and drawn again in full quality afterwards, so that nothing that
was slow on the page is slow in the video, and sound and picture fit to the sample."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gsth import provenance
from gsth.errors import InputError
from gsth.serve._optics import Orbit
from gsth.serve._paint import Painter
from gsth.serve.session import Moment, Session

if TYPE_CHECKING:
    from gsth.drive import Sound

MAX_S = 600.0
"""A recording ends by itself after this time."""
SOUND_RATE = 48_000
_JITTER_S = 0.08


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame of a recording."""

    moment: Moment
    orbit: Orbit
    sound: Sound | None
    """What was playing,"""
    position_s: float
    """and where in it,"""
    speed: float
    """and how fast; sound is heard only while playing."""


@dataclass(eq=False)
class Take:
    """Frames at a constant rate."""

    fps: float
    shots: list[Shot] = field(default_factory=list)

    def note(self, session: Session, orbit: Orbit) -> None:
        """Add what is to be seen now from a camera."""
        moment, transport = session.moment(), session.transport
        sound = transport.sound if transport.playing else None
        self.shots.append(Shot(moment, orbit, sound, transport.position_s, transport.speed))

    @classmethod
    def of_motion(cls, session: Session, orbits: Sequence[Orbit], painter: Painter) -> Take:
        """The whole motion that is on, from its start, with the camera going through ``orbits``."""
        if not orbits:
            raise InputError("the camera path has no keys; look from somewhere and add one")
        take, sound = cls(session.fps), session.transport.sound
        for i in range(session.frames):
            orbit = painter.optics.between(orbits, i / max(session.frames - 1, 1))
            take.shots.append(Shot(session.moment_at(i), orbit, sound, i / session.fps, 1.0))
        return take

    def sound(self) -> np.ndarray | None:
        """The sound of all frames in a row, float32 at ``SOUND_RATE``; None where nothing was heard."""
        if all(s.sound is None for s in self.shots):
            return None
        out = np.zeros(round(len(self.shots) / self.fps * SOUND_RATE), np.float32)
        before: Shot | None = None
        position = 0.0
        for i, shot in enumerate(self.shots):
            expected = position + shot.speed / self.fps
            # Noted times jitter by milliseconds; sound that goes on must not.
            goes_on = before is not None and before.sound is shot.sound and abs(shot.position_s - expected) < _JITTER_S
            position = expected if goes_on else shot.position_s
            before = shot
            if shot.sound is not None:
                a, b = round(i / self.fps * SOUND_RATE), round((i + 1) / self.fps * SOUND_RATE)
                out[a:b] = _heard(shot.sound, position + np.arange(b - a) / SOUND_RATE * shot.speed)
        return out


def _heard(sound: Sound, times: np.ndarray) -> np.ndarray:
    """Samples at some times, s, between the neighbours; silence beyond the ends."""
    at = times * sound.rate
    i = np.floor(at).astype(np.int64)
    inside = (i >= 0) & (i + 1 < len(sound.samples))
    i = np.where(inside, i, 0)
    share = (at - i).astype(np.float32)
    if len(sound.samples) < 2:
        return np.zeros(len(times), np.float32)
    return np.where(inside, (1 - share) * sound.samples[i] + share * sound.samples[i + 1], 0).astype(np.float32)


class Recorder:
    """Notes what one visitor sees, at the motion's rate, in a thread of its own."""

    def __init__(self, session: Session, orbit: Orbit) -> None:
        """Begin. ``orbit`` may be moved later by ``look``."""
        self._session, self._orbit = session, orbit
        self.take = Take(min(max(session.fps, 10.0), 60.0))
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._note, name="gsth-record", daemon=True)
        self._thread.start()

    def look(self, orbit: Orbit) -> None:
        """Follow the visitor's camera."""
        self._orbit = orbit

    def stop(self) -> Take:
        """End, and give what was noted."""
        self._end.set()
        self._thread.join()
        return self.take

    def _note(self) -> None:
        start = time.monotonic()
        while not self._end.is_set() and len(self.take.shots) < MAX_S * self.take.fps:
            self.take.note(self._session, self._orbit)
            self._end.wait(max(0.0, start + len(self.take.shots) / self.take.fps - time.monotonic()))


def film(take: Take, session: Session, painter: Painter, height: int, out: Path, told: Callable[[float], None]) -> None:
    """Draw a take and write it as mp4 with its sound; ``told`` hears the share that is done.

    Raises:
        InputError: The take is empty.
        OutputError: ``out`` cannot be written.
    """
    if not take.shots:
        raise InputError("nothing was recorded")
    size = _size(take.shots[0].orbit, height)

    def pictures() -> Iterator[np.ndarray]:
        last: tuple[object, np.ndarray] | None = None
        for i, shot in enumerate(take.shots):
            content = (shot.moment.key, shot.orbit)
            if last is None or last[0] != content:
                last = content, painter.paint(session, shot.moment, shot.orbit, size).numpy()
            yield last[1]
            told((i + 1) / len(take.shots))

    who = provenance.about([session.avatar.meta])
    provenance.write_video(out, pictures(), take.fps, (take.sound(), SOUND_RATE), who, provenance.STAMPED)


def still(session: Session, painter: Painter, orbit: Orbit, height: int, out: Path) -> None:
    """Write a png of what is to be seen now."""
    picture = painter.paint(session, session.moment(), orbit, _size(orbit, height)).numpy()
    provenance.write_image(out, picture, provenance.about([session.avatar.meta]), provenance.STAMPED)


def _size(orbit: Orbit, height: int) -> tuple[int, int]:
    """Width and height of pictures with the shape of the page's canvas."""
    return max(16, round(height * orbit.width / max(orbit.height, 1))), height
