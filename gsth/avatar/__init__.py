"""Avatars: a Track in, a person that can be posed out.

``train(track, config, work)`` fits one and speaks in events; ``Avatar.pose(motion)`` is the one function between
what moves a head (Motion) and what can be drawn (Splats). Layers of motion: the rig (splats on triangles) and
linear correctives (position and colour deltas from expression and joints).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gsth.avatar._config import AvatarConfig, DensityConfig, LossWeights

if TYPE_CHECKING:
    from gsth.avatar._avatar import Avatar, Correctives, Source, seen_from
    from gsth.avatar._crew import Crew, check_crew, crew
    from gsth.avatar._train import train

__all__ = [
    "Avatar",
    "AvatarConfig",
    "Correctives",
    "Crew",
    "DensityConfig",
    "LossWeights",
    "Source",
    "check_crew",
    "crew",
    "seen_from",
    "train",
]


def __getattr__(name: str) -> Any:
    # The configs above must stay importable without torch: the command line shows them in its help.
    if name in ("Avatar", "Correctives", "Source", "seen_from"):
        from gsth.avatar import _avatar

        return getattr(_avatar, name)
    if name in ("Crew", "check_crew", "crew"):
        from gsth.avatar import _crew

        return getattr(_crew, name)
    if name == "train":
        from gsth.avatar._train import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
