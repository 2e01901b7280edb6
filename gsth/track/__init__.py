"""Tracking: a clip of a person in, a Track out (identity, motion, camera, mattes, background plate).

``check(clip)`` says within seconds whether a clip can be used. ``track(clip, config, out)`` streams events while it
works and writes a Track artifact. Stages: landmarks and pre-flight, crop, mattes and plate, fit of the head model,
photometric refinement, report. ``run`` also takes folders of other projects' trackers (``importers``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gsth.errors import MissingExtraError
from gsth.track._config import TrackConfig

if TYPE_CHECKING:
    from gsth.track._track import check, run, track

__all__ = ["TrackConfig", "check", "run", "track"]


def __getattr__(name: str) -> Any:
    # TrackConfig must stay importable without torch: the command line shows it in its help.
    if name in ("check", "run", "track"):
        try:
            from gsth.track import _track
        except ModuleNotFoundError as error:
            if error.name != "cv2":  # comes with mediapipe
                raise
            raise MissingExtraError("mediapipe", "track", "tracking a face") from error
        return getattr(_track, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
