"""The focal length that a film itself tells: phones write it down, a face alone tells it poorly."""

from __future__ import annotations

import math
import re
from collections.abc import Generator
from dataclasses import dataclass

from gsth import media
from gsth.track._config import TrackConfig
from gsth.types import Clip, Notice

DIAGONAL_MM = math.hypot(36, 24)
"""Of 35 mm film: focal lengths "as of 35 mm film" mean the same angle along the diagonal (CIPA DCG-001)."""
PLAUSIBLE_MM = (8.0, 600.0)
"""From fisheyes to long telephoto lenses, as of 35 mm film."""
NUMBER = re.compile(r"\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*(?:mm)?\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Told:
    """What a film says of its lens."""

    said: str
    """As it stands there."""
    focal_px: float | None
    """Focal length, px of the clip; None where what is said is none."""


def told(clip: Clip) -> Told | None:
    """What the tags of a film say of its lens; None where they say nothing.

    Keys that speak of a focal length as of 35 mm film are believed, whoever writes them: QuickTime's
    ``com.apple.quicktime.camera.focal_length.35mm_equivalent``, Exif's ``FocalLengthIn35mmFilm``. Without the size of
    the sensor, which no file tells, the true focal length is of no use.
    """
    tags = media.tags(clip.path)
    said = next((value for key, value in tags.items() if "focal" in key and "35" in key), None)
    if said is None:
        return None
    lens = next((value for key, value in tags.items() if "lens" in key and "model" in key), None)
    number = NUMBER.fullmatch(said)
    mm = _float(number.group(1)) if number else None
    if mm is None or not PLAUSIBLE_MM[0] <= mm <= PLAUSIBLE_MM[1]:
        return Told(said, None)
    return Told(
        f"{mm:g} mm as of 35 mm film" + (f", {lens}" if lens else ""),
        mm / DIAGONAL_MM * math.hypot(clip.width, clip.height),
    )


def known(clip: Clip, config: TrackConfig) -> Generator[Notice, None, float | None]:
    """The focal length of a clip, px, from the user or else from the film; None where neither tells it.

    Yields a Notice that says what the film told.
    """
    if config.focal_px is not None or not config.film_lens:
        return config.focal_px
    lens = told(clip)
    if lens is None:
        return None
    if lens.focal_px is None:
        low, high = PLAUSIBLE_MM
        yield Notice(
            f"{clip.path}: its tags give {lens.said[:80]!r} as the focal length, wanted {low:g} to {high:g} mm: ignored"
        )
    else:
        yield Notice(
            f"{clip.path}: the lens is taken from the film's own tags ({lens.said[:200]}): {lens.focal_px:.0f} px; "
            f"was the film cropped or zoomed since, say --focal-px or --no-film-lens"
        )
    return lens.focal_px


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
