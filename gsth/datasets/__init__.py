"""Public data sets of talking people: from the layout they come in to clips that ``gsth train`` takes.

Nothing is downloaded. ``read`` lists what lies in a folder that was downloaded under each set's own licence;
``write_clip`` cuts one entry out as a video. ``docs/datasets.md`` says what each set holds and how to get it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gsth.errors import InputError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Sample", "names", "read", "write_clip"]

SOUND_RATE = 48_000
"""Of the sound in written clips, Hz."""


@dataclass(frozen=True)
class Sample:
    """One recording of one person: a video, or numbered stills, or meshes."""

    dataset: str
    identity: str
    """Who it is, as the set names people (or, where it does not, their source video)."""
    name: str
    """Unique within the set; a file name without its ending."""
    video: Path | None = None
    stills: tuple[Path, ...] = ()
    """Pictures in order, where the set has no video."""
    meshes: tuple[Path, ...] = ()
    """Registered meshes in order, where the set has them."""
    fps: float | None = None
    """Rate of stills and meshes; a video knows its own."""
    sound: Path | None = None
    """A file with the sound; None: the video's own."""
    start_s: float = 0.0
    stop_s: float | None = None
    """Where it ends in the video; None: at the video's end."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom of the part to keep, as shares of the picture."""
    text: str | None = None
    """What is said."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What else the set says of it: emotion, view, split."""


def names() -> tuple[str, ...]:
    """The sets that can be read."""
    from gsth.datasets import _layouts

    return tuple(sorted(_layouts.READERS))


def read(name: str, root: Path) -> list[Sample]:
    """The recordings of a set that lie under ``root``, sorted by name; those whose video is absent are left out.

    Raises:
        InputError: There is no such set, or nothing of its layout under ``root``.
    """
    from gsth.datasets import _layouts

    if name not in _layouts.READERS:
        raise InputError(f"no data set is called {name!r}; there are: {', '.join(names())}")
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; want the root of {name}")
    found = sorted(_layouts.READERS[name](root), key=lambda s: s.name)
    if not found:
        raise InputError(f"{root}: holds nothing in the layout of {name}: {_layouts.LOOKS[name]}")
    return found


def write_clip(sample: Sample, out: Path) -> None:
    """Cut a recording out as an .mp4 with its sound: what ``gsth train`` and ``gsth batch`` take.

    Raises:
        InputError: It is a recording of meshes alone, or its part is not in the video.
    """
    from gsth import media

    if sample.video is None and not sample.stills:
        raise InputError(f"{sample.name}: {sample.dataset} has meshes of it and no pictures; it cannot become a clip")
    if sample.video is None:
        fps, start_s = sample.fps or 25.0, 0.0
        pictures: Iterator[np.ndarray] = (media.read_image(p) for p in sample.stills)
        seconds = len(sample.stills) / fps
    else:
        clip = media.probe(sample.video)
        fps, start_s = clip.fps, sample.start_s
        first = round(sample.start_s * fps)
        stop = clip.frames if sample.stop_s is None else min(clip.frames, round(sample.stop_s * fps))
        if stop - first < 2:
            raise InputError(f"{sample.name}: {start_s:g} s to {sample.stop_s} s is not in {sample.video}")
        pictures, seconds = media.frames(clip, first, stop), (stop - first) / fps
    heard = sample.sound or (sample.video if sample.video is not None and media.probe(sample.video).wav else None)
    sound = None
    if heard is not None:
        # a sound file of its own belongs to the recording; the video's runs from the video's start
        begin = 0 if sample.sound is not None else round(start_s * SOUND_RATE)
        sound = media.sound(heard, SOUND_RATE)[begin : begin + math.ceil(seconds * SOUND_RATE)]
    media.write_video(out, (_cut(p, sample.box) for p in pictures), fps, sound, SOUND_RATE)


def _cut(picture: np.ndarray, box: tuple[float, float, float, float] | None) -> np.ndarray:
    if box is None:
        return picture
    h, w = picture.shape[:2]
    x0, y0, x1, y1 = (round(v * n) for v, n in zip(box, (w, h, w, h), strict=True))
    return picture[max(y0, 0) : y1, max(x0, 0) : x1]
