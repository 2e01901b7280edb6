"""The field's splits of a clip into training and test frames."""

from __future__ import annotations

import re

from gsth.errors import InputError
from gsth.types import Clip

_KINDS = '"10/11" (train on the first ten elevenths), "last 350", "last 500" or "first 10 s"'


def test_frames(split: str, clip: Clip) -> range:
    """The test frames of a split.

    ``A/B``: all after the first int(frames * A / B) (AD-NeRF's and its heirs' 10/11). ``last N``: the last N frames
    (INSTA's subjects: 350, FlashAvatar 500). ``first N s``: all after the first N seconds (few-shot protocols).

    Raises:
        InputError: It is no such split, or leaves nothing on one side.
    """
    if found := re.fullmatch(r"(\d+)/(\d+)", split):
        first = clip.frames * int(found[1]) // max(int(found[2]), 1)
    elif found := re.fullmatch(r"last (\d+)", split):
        first = clip.frames - int(found[1])
    elif found := re.fullmatch(r"first (\d+(?:\.\d+)?) ?s", split):
        first = round(float(found[1]) * clip.fps)
    else:
        raise InputError(f"split {split!r} is not known; wanted {_KINDS}")
    if not 0 < first < clip.frames:
        raise InputError(
            f"split {split!r} leaves nothing to train on or to test in the {clip.frames} frames of {clip.path}"
        )
    return range(first, clip.frames)
