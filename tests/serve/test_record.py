from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from watching import until

from gsth import media
from gsth.drive import Sound
from gsth.errors import InputError
from gsth.serve import _record
from gsth.serve._optics import Optics
from gsth.serve._paint import Painter
from gsth.serve._record import SOUND_RATE, Recorder, Shot, Take
from gsth.serve.session import Session

RATE = 8000


@pytest.fixture
def painter(person: Any) -> Painter:
    return Painter(Optics.of(person))


def _ramp(seconds: float) -> Sound:
    """Sound whose samples say where in it they are."""
    return Sound(np.linspace(0, seconds, round(seconds * RATE), endpoint=False, dtype=np.float32), RATE)


def _take(person: Any, painter: Painter, sound: Sound, positions: list[float], speed: float = 1.0) -> Take:
    session, orbit = Session(person), painter.optics.home(96, 96)
    return Take(25.0, [Shot(session.moment(), orbit, sound, p, speed) for p in positions])


def test_sound_runs_on_through_jitter_and_jumps_where_it_was_wound(person: Any, painter: Painter) -> None:
    positions = [0.0, 0.05, 0.07, 0.13, 0.60, 0.64]
    heard = _take(person, painter, _ramp(2), positions).sound()
    assert heard is not None
    starts = heard[:: SOUND_RATE // 25]
    assert starts == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.60, 0.64], abs=1e-3)
    assert np.abs(np.diff(heard[: 4 * SOUND_RATE // 25])).max() < 1e-4


def test_sound_follows_the_speed_and_ends(person: Any, painter: Painter) -> None:
    heard = _take(person, painter, _ramp(0.1), [0.0, 0.02, 0.04, 0.06, 0.08, 0.10, 0.12], 0.5).sound()
    assert heard is not None
    assert heard[SOUND_RATE // 25] == pytest.approx(0.02, abs=1e-3)
    assert np.all(heard[-SOUND_RATE // 25 :] == 0)


def test_silence_is_no_sound(person: Any, painter: Painter) -> None:
    session = Session(person)
    take = Take(25.0, [Shot(session.moment(), painter.optics.home(96, 96), None, 0.0, 1.0)])
    assert take.sound() is None


def test_a_film_holds_picture_and_sound_in_step(person: Any, painter: Painter, tmp_path: Path) -> None:
    """The chin is lowest where the sound is loud: jawOpen rises over the ten frames, a tone fills the last two."""
    session = Session(person)
    tone = np.zeros(round(0.4 * RATE), np.float32)
    tone[-round(0.08 * RATE) :] = 0.5 * np.sin(np.arange(round(0.08 * RATE)) * 0.5)
    session.load(person.motion, sound=Sound(tone, RATE))
    take = Take.of_motion(session, [painter.optics.home(96, 96)], painter)
    out, told = tmp_path / "out.mp4", []
    _record.film(take, session, painter, 96, out, told.append)
    assert told[-1] == 1.0 and len(told) == 10
    clip = media.probe(out)
    assert (clip.frames, clip.width, clip.fps) == (10, 96, 25.0)
    red = [int((f[..., 0].astype(int) > f[..., 2].astype(int) + 30).sum()) for f in media.frames(clip)]
    assert red[-1] > 1.1 * red[0] and red == sorted(red)
    sound = media.sound(out, RATE)
    loud = np.flatnonzero(np.abs(sound) > 0.1)
    assert loud.min() / RATE == pytest.approx(0.32, abs=0.015)


def test_a_path_goes_round_the_head_and_keeps_its_distance(painter: Painter, person: Any) -> None:
    optics = painter.optics
    keys = [optics.beside(-40), optics.home(1, 1), optics.beside(40)]
    far = math.dist(keys[0].position, optics.target.tolist())
    for amount in (0.0, 0.1, 0.4, 0.5, 0.9, 1.0):
        orbit = optics.between(keys, amount)
        assert math.dist(orbit.position, optics.target.tolist()) == pytest.approx(far, rel=1e-4)
    assert optics.between(keys, 0.5).position == pytest.approx(keys[1].position, abs=1e-5)
    assert optics.between(keys[:1], 0.7).position == pytest.approx(keys[0].position)
    with pytest.raises(InputError, match="no keys"):
        Take.of_motion(Session(person), [], painter)


def test_the_recorder_notes_at_the_motions_rate(person: Any, painter: Painter) -> None:
    session, orbit = Session(person), painter.optics.home(96, 96)
    session.load(person.motion, sound=_ramp(0.4))
    session.play()
    began = time.monotonic()
    recorder = Recorder(session, orbit)
    until(lambda: len(recorder.take.shots) >= 12, "twelve notes")
    recorder.look(dataclasses.replace(orbit, fov=0.3))
    until(lambda: recorder.take.shots[-1].orbit.fov == 0.3, "a note from the new place")
    take = recorder.stop()
    # It may be late, as any thread, and then notes what it missed; it is never early.
    assert len(take.shots) <= (time.monotonic() - began) * 25 + 1
    assert take.shots[0].orbit == orbit
    assert take.shots[1].sound is not None


def test_nothing_recorded_is_refused(person: Any, painter: Painter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was recorded"):
        _record.film(Take(25.0), Session(person), painter, 96, tmp_path / "x.mp4", lambda _: None)
    assert list(tmp_path.iterdir()) == []
