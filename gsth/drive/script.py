"""Several avatars in conversation: a script file (YAML) with speakers and lines.

::

    speakers:
      anna: {avatar: anna.avatar, voice: hibari, emotion: "happy:0.4"}
      ben: {avatar: ben.avatar, voice: en-gb+m3}
    lines:
      - anna: Hello Ben! How are you?
      - ben: I am <emphasis>very</emphasis> well, thank you.
        emotion: happy
      - anna: Good.
        pause_s: 0.8

Whoever does not speak listens: blinks, gaze and sway go on, and the lips rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth.drive._config import IdleConfig, Manner
from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.drive import Sound
    from gsth.drive._speaking import SpeechDriver

_TURN_S = 0.25
"""Pause between two lines."""
_LEAD_S, _TAIL_S = 0.3, 0.5
_SETTINGS = ("emotion", "pause_s")


@dataclass(frozen=True)
class Role:
    """One speaker."""

    avatar: Path
    """Folder that gsth train wrote; relative to the script file."""
    voice: str | None = None
    lang: str | None = None
    emotion: str = "none"
    """Between and during lines that name none of their own."""
    seed: int = 0
    expressiveness: float = 1.0
    idle: IdleConfig = field(default_factory=IdleConfig)

    @property
    def manner(self) -> Manner:
        """How the role speaks."""
        return Manner(self.seed, self.expressiveness, self.emotion, self.idle)


@dataclass(frozen=True)
class Line:
    """What one of them says."""

    role: str
    text: str
    emotion: str | None = None
    pause_s: float = _TURN_S


@dataclass(frozen=True)
class Script:
    """Who speaks, and what."""

    roles: Mapping[str, Role]
    lines: tuple[Line, ...]


def read(path: Path) -> Script:
    """Read a script file.

    Raises:
        InputError: It is missing or no YAML, names an unknown key or speaker, or has no line.
    """
    import yaml

    from gsth import _config

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as e:
        raise InputError(f"{path}: cannot be read as YAML: {e}") from e
    if not isinstance(values, Mapping) or set(values) != {"speakers", "lines"}:
        raise InputError(f"{path}: want the keys speakers and lines, as in docs/driving.md")
    if not isinstance(values["speakers"], Mapping) or not isinstance(values["lines"], list) or not values["lines"]:
        raise InputError(f"{path}: want speakers as NAME: {{avatar: ...}} and at least one line as - NAME: text")
    roles = {}
    for name, given in values["speakers"].items():
        role = _config.filled(Role, given, f"{path}: speakers: {name}")
        roles[str(name)] = _at(role, path)
    lines = tuple(_line(given, roles, f"{path}: line {i}") for i, given in enumerate(values["lines"], 1))
    return Script(roles, lines)


def _at(role: Role, script: Path) -> Role:
    """The role with its avatar's path relative to the script."""
    from dataclasses import replace

    return replace(role, avatar=script.parent / role.avatar)


def _line(given: Any, roles: Mapping[str, Role], where: str) -> Line:
    names = [k for k in given if k not in _SETTINGS] if isinstance(given, Mapping) else []
    if len(names) != 1 or not isinstance(given[names[0]], str):
        raise InputError(f"{where}: want NAME: text (and perhaps {' or '.join(_SETTINGS)}), got {given!r}")
    if names[0] not in roles:
        raise InputError(f"{where}: nobody is called {names[0]!r}; there are: {', '.join(roles)}")
    pause = given.get("pause_s", _TURN_S)
    if isinstance(pause, bool) or not isinstance(pause, (int, float)) or not 0 <= pause <= 30:
        raise InputError(f"{where}: pause_s is {pause!r}; want 0 to 30 seconds")
    emotion = given.get("emotion")
    return Line(names[0], given[names[0]], None if emotion is None else str(emotion), float(pause))


def perform(script: Script, avatars: Mapping[str, Avatar]) -> tuple[Mapping[str, SpeechDriver], Sound]:
    """Speak all lines.

    Args:
        script: Who says what.
        avatars: Of each role that has a line or is seen; all of one frame rate.

    Returns:
        A driver of each avatar, all of one length, and the sound of all together.

    Raises:
        InputError: As ``gsth.drive.text`` says of each line.
    """
    import numpy as np

    from gsth import media, voice
    from gsth.audio import RATE
    from gsth.drive import Sound, _emotion
    from gsth.drive._cues import Cues
    from gsth.drive._say import say
    from gsth.drive._speaking import SOUND_RATE, SpeechDriver

    speakers = {n: voice.find(r.voice, r.lang) for n, r in script.roles.items() if n in avatars}
    said, now = [], _LEAD_S
    cues: dict[str, Cues] = {n: Cues(moods=_emotion.moods(script.roles[n].emotion)) for n in avatars}
    for i, line in enumerate(script.lines):
        try:
            part = say(line.text, speakers[line.role])
            own = part.cues.moods or (_emotion.moods(line.emotion) if line.emotion else ())
        except InputError as e:
            raise InputError(f"line {i + 1} ({line.role}): {e}") from e
        now += line.pause_s if i else 0.0
        base = _emotion.moods(script.roles[line.role].emotion)
        after = [_emotion.Mood(part.seconds, m.name, m.intensity) for m in (base[-1:] or (_emotion.Mood(0, ""),))]
        moods = (*own, *after) if own else ()
        cues[line.role] = cues[line.role].joined(Cues(part.cues.phonemes, part.cues.emphases, moods).shifted(now))
        said.append((line.role, now, part))
        now += part.seconds
    total = now + _TAIL_S
    tracks = {n: np.zeros(round(total * SOUND_RATE), np.float32) for n in avatars}
    for role, start, part in said:
        samples = media.resampled(part.sound.samples, part.sound.rate, SOUND_RATE)
        at = round(start * SOUND_RATE)
        tracks[role][at : at + len(samples)] = samples[: len(tracks[role]) - at]
    drivers = {
        n: SpeechDriver(
            avatars[n], media.resampled(t, SOUND_RATE, RATE), script.roles[n].manner, Sound(t, SOUND_RATE), cues[n]
        )
        for n, t in tracks.items()
    }
    return drivers, Sound(np.sum(list(tracks.values()), 0), SOUND_RATE)
