"""The avatar moved by something else than its own clip: foreign sound, another language, another person's motion.

There is no reference picture. Scored is what needs none: identity against the person's training frames, lips against
the sound, expression and pose against the motion that was asked for, steadiness, naturalness. The person's own film
stands beside it as the row ``truth``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gsth import audio, drive, media
from gsth.evaluate import _subject
from gsth.evaluate._config import EvalConfig
from gsth.evaluate._exam import FILM_FRAMES, Results, side_by_side
from gsth.evaluate._retrack import Retracked, retrack
from gsth.evaluate._score import SLOW_FRAMES, Row, Talk, embeddings
from gsth.evaluate._tools import Tools
from gsth.types import Clip, Event, Motion, Step

if TYPE_CHECKING:
    from gsth.avatar import Avatar


def cross(avatar: Avatar, clip: Clip, config: EvalConfig) -> Iterator[Event | Results]:
    """Score a foreign motion; yields events, then the results."""
    motion, talk = _asked_for(avatar, config)
    draw = _subject.Drawer(avatar)
    with Tools(config) as tools:
        own, face = _own_film(avatar, clip, tools)
        row, film = Row(tools, talks=True), []
        slow = set(np.linspace(0, len(motion) - 1, SLOW_FRAMES).round().astype(int).tolist())
        for t in range(len(motion)):
            picture = draw(motion, t)
            row.free(picture, face, slow=t in slow)
            if len(film) < FILM_FRAMES:
                film.append(side_by_side(picture))
            yield Step("evaluate", t + 1, len(motion))
        held_out = list(range(avatar.source.train_frames, len(avatar.source.frame_ids)))
        own_talk = _subject.talk_of(avatar, clip, held_out, spoken_only=True)
        moves = None
        if tools.thorough:
            found = retrack(avatar.shaped, avatar.cameras.Ks[0].double().numpy(), np.array(row.landmarks))
            moves = (found, _as_told(avatar, motion, found))
        rows = {"avatar": row.figures(None, talk, moves), "truth": own.figures(None, own_talk)}
        yield Results(
            rows, tools.absent, list(range(len(motion))), {}, {"latency_ms": draw.latency_ms()}, film, motion.fps
        )


def _asked_for(avatar: Avatar, config: EvalConfig) -> tuple[Motion, Talk]:
    """The motion of ``--audio`` or ``--motion``, and its sound."""
    if config.audio is None:
        from gsth.drive import motion as files

        assert config.motion is not None
        motion = drive.offline(files.Config(config.motion).build(avatar))
        return motion, Talk(motion.fps)
    from gsth.drive import audio as speech

    motion = drive.offline(speech.Config(wav=config.audio).build(avatar))
    sound = media.sound(config.audio, audio.RATE)
    spoken, loudness = _subject.heard(sound, motion.fps, len(motion))
    return motion, Talk(motion.fps, spoken, None, sound, loudness)


def _own_film(avatar: Avatar, clip: Clip, tools: Tools) -> tuple[Row, dict[str, NDArray[np.float64]]]:
    """The person's own held-out frames as a row, and the mean embedding over some training frames."""
    trained = avatar.source.train_frames
    samples = set(np.linspace(0, trained - 1, _subject.TRAIN_SAMPLES).round().astype(int).tolist())
    total = len(avatar.source.frame_ids)
    slow = set(np.linspace(trained, total - 1, SLOW_FRAMES).round().astype(int).tolist())
    faces: dict[str, list[NDArray[np.float64]]] = {}
    row, face = Row(tools, talks=True), {}
    for t, raw in enumerate(_subject.references(avatar, clip)):
        if t in samples:
            for name, vector in embeddings(raw, tools.landmarks(raw), tools).items():
                faces.setdefault(name, []).append(vector)
            face = {name: np.mean(vectors, 0) for name, vectors in faces.items()}
        if t >= trained:
            row.free(raw, face, slow=t in slow)
    return row, face


def _as_told(avatar: Avatar, motion: Motion, found: Retracked) -> Retracked:
    """The motion itself, put through the same landmarks and fit as what was found, so that the fit's bias cancels."""
    from gsth import math3d

    points = avatar.head.landmarks(avatar.shaped.posed(motion).verts)
    pixels = math3d.project(points, avatar.cameras.Ks[0]).double().numpy()
    pixels[np.isnan(found.expr).any(1)] = np.nan
    return retrack(avatar.shaped, avatar.cameras.Ks[0].double().numpy(), pixels)
