"""Settings shared by the drivers; no torch here, so that the command line can show them at once."""

from __future__ import annotations

from dataclasses import dataclass, field

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
class Manner:
    """How someone speaks, besides the words."""

    seed: int = 0
    """Of blinks, glances and head sway; the mouth does not depend on it."""
    expressiveness: float = 1.0
    """Factor on the movements of mouth and brows away from rest, 0 to 2."""
    emotion: str = "none"
    """happy, sad, angry, surprised, disgusted, afraid or calm; with an intensity: happy:0.5; changing over time, by
    seconds: calm,happy:0.8@2.5,none@6"""
    idle: IdleConfig = field(default_factory=IdleConfig)
    """Blinks, gaze and head motion."""

    def __post_init__(self) -> None:
        if not 0 <= self.expressiveness <= 2:
            raise InputError(f"expressiveness is {self.expressiveness}; it must be 0 to 2")


@dataclass(frozen=True)
class SpeechConfig:
    """How the person's own speech is learned from the clip."""

    personal: bool = True
    """Learn from the clip's sound; otherwise only rest pose and span of the mouth are the person's."""
