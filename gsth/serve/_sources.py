"""What can drive the avatar, as small forms: the drivers are those that ``gsth.drive`` holds, none is named here.

A driver's ``Config`` says what it needs: a ``Path`` is a file that the visitor gives, a text is typed, a number too.
Fields that are settings of settings keep their defaults, but for the manner of speaking, which the page has controls
for.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gsth import registry
from gsth.errors import InputError

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.drive import Manner
    from gsth.types import Motion

Kind = Literal["file", "text", "number"]
SUFFIXES = {
    "sound": (".wav", ".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".webm"),
    "video": (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"),
    "motion": (".npz", ".csv", ".json"),
    "image": (".png", ".jpg", ".jpeg", ".webp"),
}
"""What may be uploaded; what a file holds is judged by whoever reads it."""
IDLE_S = 120.0


@dataclass(frozen=True)
class Field:
    """One thing that a driver wants to know."""

    name: str
    kind: Kind
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Source:
    """One driver."""

    name: str
    config: Any
    fields: tuple[Field, ...]

    @property
    def wants(self) -> Field | None:
        """The one thing without which it cannot begin; None where it can begin at once."""
        return next((f for f in self.fields if f.required), None)

    def build(self, avatar: Avatar, given: dict[str, Any], manner: Manner) -> Any:
        """The driver, from what the visitor gave. Raises InputError as the driver does."""
        known = {f.name for f in self.fields}
        if unknown := set(given) - known:
            raise InputError(f"{self.name}: takes {', '.join(sorted(known))}; got {', '.join(sorted(unknown))}")
        if any(f.name == "manner" for f in dataclasses.fields(self.config)):
            given = {**given, "manner": manner}
        return self.config(**given).build(avatar)


def sources() -> dict[str, Source]:
    """The drivers that need at most one file or text to begin, by name.

    A driver that needs a package which is absent is listed too: it says which one when it is used.
    """
    found = {}
    for name in registry.names("drive"):
        config = registry.plugin("drive", name)
        if not dataclasses.is_dataclass(config):
            continue
        made = Source(name, config, _fields(config))
        required = [f for f in dataclasses.fields(config) if _bare(f)]
        if len(required) == sum(f.required for f in made.fields) <= 1:
            found[name] = made
    return found


def _fields(config: Any) -> tuple[Field, ...]:
    hints = typing.get_type_hints(config)
    out = []
    for f in dataclasses.fields(config):
        kinds = {Path: "file", str: "text", float: "number", int: "number"}
        hint = hints[f.name]
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            hint = next(h for h in typing.get_args(hint) if h is not type(None))
        if hint in kinds:
            default = None if f.default is dataclasses.MISSING else f.default
            out.append(Field(f.name, typing.cast(Kind, kinds[hint]), _bare(f), default))
    return tuple(out)


def _bare(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def kind_of(name: str) -> str:
    """Which of ``SUFFIXES`` a file's name belongs to. Raises InputError where it belongs to none."""
    suffix = Path(name).suffix.lower()
    for kind, suffixes in SUFFIXES.items():
        if suffix in suffixes:
            return kind
    known = ", ".join(s for group in SUFFIXES.values() for s in group)
    raise InputError(f"{Path(name).name[:60]!r} cannot be used here; files may end in {known}")


def idle(avatar: Avatar, manner: Manner) -> Motion:
    """Two minutes of blinks, glances and sway, with the mouth as the person rests it."""

    from gsth.drive._idle import Idle

    known = avatar.motion[: max(avatar.source.train_frames, 1)]
    names, frames = avatar.head.expression_names, round(IDLE_S * known.fps)
    rest = known.expr.median(0).values
    return Idle(known, names, manner.seed, manner.idle).frames(0, frames, known.fps, rest.expand(frames, -1))


def moods() -> tuple[str, ...]:
    """Names of the emotions that the drivers know."""
    from gsth.drive._emotion import library

    return tuple(library())


def presets(names: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Expressions to put on at once, by name: the emotions' faces, in the head model's own names."""
    from gsth.drive._emotion import library

    out: dict[str, dict[str, float]] = {}
    for mood, emotion in library().items():
        face = {}
        for part, value in emotion.offsets.items():
            for name in (part, f"{part}Left", f"{part}Right"):
                if name in names and value > 0:
                    face[name] = value
        if face:
            out[mood] = face
    return out
