"""Scores avatars, and anybody's pictures, so that the figures can be believed.

The reference is the raw video: decoded, cropped and resized, never what tracking stored. What is scored is what is
written: 8-bit pictures. The first row moves the avatar by what tracking alone found; beside it stand the same avatar
with motion refined against it, four things that cost nothing, and the video itself. ``docs/evaluation.md`` says how
each figure is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsth.evaluate._config import EvalConfig
from gsth.types import Event

if TYPE_CHECKING:
    from gsth.evaluate._measures import BASELINES, MEASURES, losses, table
    from gsth.evaluate._pictures import reference_picture
    from gsth.evaluate._sheet import sheet

__all__ = [
    "BASELINES",
    "MEASURES",
    "EvalConfig",
    "compare",
    "losses",
    "reference_picture",
    "run",
    "score_pictures",
    "sheet",
    "table",
]

_HOMES = {
    "BASELINES": "_measures",
    "MEASURES": "_measures",
    "losses": "_measures",
    "reference_picture": "_pictures",
    "sheet": "_sheet",
    "table": "_measures",
}
"""Imported when first used: the command line shows ``EvalConfig`` without torch."""


def run(avatar_path: Path, config: EvalConfig) -> Iterator[Event]:
    """Score an avatar on its held-out frames, or moved by a foreign sound or motion.

    The last event is ``Done``; its values are the avatar's row under the names of ``MEASURES``, ``gap_db`` (PSNR on
    training frames less PSNR on held-out ones) and the speed. What could not be measured is absent (and null in the
    JSON file, which holds all rows).

    Raises:
        InputError: the avatar kept no frames for scoring, the clip is gone or is another one, it has no sound to be
            driven by, the split was seen in training, or an output cannot be written there.
        MissingExtraError: mediapipe is absent.
    """
    from gsth.evaluate import _run

    return _run.run(avatar_path, config)


def compare(avatars: Sequence[Path], config: EvalConfig) -> Iterator[Event]:
    """Score several avatars of one clip on the frames that none of them saw, side by side.

    The last event is ``Done`` with the values ``<avatar>.<measure>``.

    Raises:
        InputError: As ``run``; or fewer than two avatars, or avatars of different clips.
    """
    from gsth.evaluate import _compare

    return _compare.compare(avatars, config)


def score_pictures(pictures: Path, reference: Path, config: EvalConfig) -> Iterator[Event]:
    """Score a folder of frames or a video, made by anybody, against a reference (a folder or a video).

    The last event is ``Done`` with the row of the pictures.

    Raises:
        InputError: They cannot be read, paired or compared; ``docs/evaluation.md`` says what is paired how.
        MissingExtraError: mediapipe is absent.
    """
    from gsth.evaluate import _run

    return _run.score_pictures(pictures, reference, config)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"gsth.evaluate.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
