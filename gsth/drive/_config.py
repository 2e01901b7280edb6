"""Settings shared by the drivers; no torch here, so that the command line can show them at once."""

from __future__ import annotations

from dataclasses import dataclass

from gsth.errors import InputError


@dataclass(frozen=True)
class IdleConfig:
    """How alive someone is besides speaking."""

    blinks_per_minute: float = 17.0
    """Mean rate; 0: never."""
    sway: float = 0.6
    """Head motion as a fraction of what the person did in the clip; 0: still."""
    glance: float = 1.0
    """Small wandering of the gaze around its mean direction; 0: fixed."""

    def __post_init__(self) -> None:
        for name, top in (("blinks_per_minute", 60), ("sway", 1.5), ("glance", 3)):
            if not 0 <= getattr(self, name) <= top:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 to {top}")


@dataclass(frozen=True)
class SpeechConfig:
    """How the person's own speech is learned from the clip."""

    personal: bool = True
    """Learn from the clip's sound; otherwise only rest pose and span of the mouth are the person's."""
