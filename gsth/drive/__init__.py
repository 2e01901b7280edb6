"""Drivers: whatever can move a head, as a stream of Motion.

To add one: a public file in this room with a frozen ``Config`` whose ``build(avatar)`` returns a ``Driver``. The
configs import no torch, so that the command line can show them at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from gsth.drive._config import IdleConfig, Manner, SpeechConfig
from gsth.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from gsth.avatar import Avatar
    from gsth.drive._person import describe, fit_speech
    from gsth.drive._speech_net import hear
    from gsth.types import Motion

__all__ = [
    "Driver",
    "IdleConfig",
    "Manner",
    "Sound",
    "SpeechConfig",
    "describe",
    "fit_speech",
    "hear",
    "offline",
    "save_curves",
]


@dataclass(frozen=True, eq=False)
class Sound:
    """What is to be heard with a motion."""

    samples: np.ndarray
    """Mono, float32, -1 to 1, [samples]; sample 0 belongs to the beginning of the first frame."""
    rate: int


class Driver(Protocol):
    """Moves one avatar's head."""

    @property
    def sound(self) -> Sound | None:
        """What is to be heard with the motion."""
        ...

    def stream(self) -> Iterator[Motion]:
        """Pieces of one or more frames, in time order, at one frame rate, each as soon as it is known."""
        ...


def offline(driver: Driver) -> Motion:
    """All that a driver has to say, as one Motion.

    Raises:
        InputError: It has nothing to say.
    """
    import torch

    pieces = list(driver.stream())
    if not pieces:
        raise InputError("the driver gave no frame; want at least one")
    audio = [p.audio for p in pieces if p.audio is not None]
    return pieces[0].replace(
        expr=torch.cat([p.expr for p in pieces]),
        joints=torch.cat([p.joints for p in pieces]),
        T_world_head=torch.cat([p.T_world_head for p in pieces]),
        audio=torch.cat(audio) if len(audio) == len(pieces) else None,
    )


def save_curves(motion: Motion, avatar: Avatar, path: Path) -> None:
    """Write a motion of an avatar as a CSV like Live Link Face's: expressions, head and eye rotations.

    Positions and torso are not in it; ``gsth.drive.motion`` reads it back onto the avatar's mean place.
    """
    from gsth.drive import _curves
    from gsth.drive.motion import turns_of

    names = tuple(avatar.head.expression_names)
    _curves.write(path, _curves.Curves(motion.fps, names, motion.expr, turns_of(motion, avatar)))


def __getattr__(name: str) -> Any:
    if name in ("describe", "fit_speech"):
        from gsth.drive import _person

        return getattr(_person, name)
    if name == "hear":
        from gsth.drive._speech_net import hear

        return hear
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
