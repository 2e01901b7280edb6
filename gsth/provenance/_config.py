"""What pictures of avatars carry when they leave gsth."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StampConfig:
    """How pictures and videos of an avatar say what they are. What is off is written into the file."""

    label: bool = False
    """Write "AI-generated" visibly into the picture."""
    watermark: bool = True
    """Hide the avatar's id in the pixels; gsth verify reads it back."""
    credentials: bool = True
    """Sign the file with C2PA content credentials that say it is AI-generated."""


STAMPED = StampConfig()
"""What is carried unless somebody says otherwise."""
