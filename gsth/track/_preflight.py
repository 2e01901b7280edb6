"""Judges a clip before any fitting: what makes it useless (InputError), and what the user should know (Notice)."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from gsth.errors import InputError
from gsth.track import _points
from gsth.track._landmarks import Detections
from gsth.types import Clip, Notice

MIN_FRAMES = 25
"""Fewer frames with a face than this cannot tell identity from expression."""
MIN_SHARE = 0.5
"""Share of frames in which the face must be found."""
RIVAL_SIZE, RIVAL_SHARE = 0.5, 0.2
"""A second face counts from this size (of the first), and matters when seen in this share of the frames."""
JUMP = 1.0
"""Way of the face from one frame to the next, in inter-ocular distances, that only a cut explains."""
CUT_DIFFERENCE, CUT_CORRELATION = 20.0, 0.7
"""A cut changes thumbnails by more grey levels than this and leaves their histograms less alike than this."""
SMALL_FACE_PX, LOW_FPS, BLURRED, DARK = 60.0, 20.0, 25.0, 50.0
"""Inter-ocular px, frames/s, Laplacian variance at 128 px, and grey level below which a Notice is due."""


def judge(clip: Clip, seen: Detections) -> Iterator[Notice]:
    """Say what is wrong with a clip.

    Raises:
        InputError: Too short, no face, a face in too few frames, two people, or more than one scene.
    """
    _refuse_faceless(clip, seen)
    _refuse_crowd(clip, seen)
    _refuse_cuts(clip, seen)
    size = float(np.median(_points.interocular(seen.points[seen.found])))
    if size < SMALL_FACE_PX:
        yield Notice(
            f"{clip.path}: the face is small ({size:.0f} px between the outer eye corners); "
            f"from {SMALL_FACE_PX:.0f} px on, details come out: film closer or in a higher resolution"
        )
    if clip.fps < LOW_FPS:
        yield Notice(f"{clip.path}: {clip.fps:.3g} frames/s is low; lips and blinks need 25 or more")
    sharp, light = float(np.nanmedian(seen.sharpness)), float(np.nanmedian(seen.light))
    if sharp < BLURRED:
        yield Notice(f"{clip.path}: the face is blurred; check focus and shutter, the avatar will be as soft")
    if light < DARK:
        yield Notice(f"{clip.path}: the face is dark (grey level {light:.0f} of 255); light it from the front")
    lost = int((~seen.found).sum())
    if lost:
        yield Notice(f"{clip.path}: no face in {lost} of {clip.frames} frames; their motion is interpolated")
    if clip.wav is None:
        yield Notice(f"{clip.path}: there is no sound; the avatar cannot learn how this person speaks")


def _refuse_faceless(clip: Clip, seen: Detections) -> None:
    count = int(seen.found.sum())
    if count == 0:
        raise InputError(
            f"{clip.path}: no face was found in any of its {clip.frames} frames; wanted one person who faces the "
            f"camera, lit from the front, upright, with head and shoulders in the picture"
        )
    if count < MIN_FRAMES and clip.frames < 2 * MIN_FRAMES:
        raise InputError(
            f"{clip.path}: too short: {count} usable frames ({clip.frames} in all), wanted at least {MIN_FRAMES}; "
            f"record a few seconds of speech"
        )
    if count < MIN_SHARE * clip.frames or count < MIN_FRAMES:
        gap = _longest_gap(seen.found)
        raise InputError(
            f"{clip.path}: a face was found in {count} of {clip.frames} frames only, wanted at least half; the longest "
            f"gap is {_time(gap[0], clip)} to {_time(gap[1], clip)}: cut the clip to the part where the face is seen"
        )


def _refuse_crowd(clip: Clip, seen: Detections) -> None:
    own = _points.interocular(seen.points)
    rival = seen.others[:, 2] > RIVAL_SIZE * own
    if rival.mean() <= RIVAL_SHARE:
        return
    one, two = np.median(seen.points[rival].mean(1), 0), np.median(seen.others[rival, :2], 0)
    raise InputError(
        f"{clip.path}: two faces in {rival.mean():.0%} of the frames, about at ({one[0]:.0f}, {one[1]:.0f}) and "
        f"({two[0]:.0f}, {two[1]:.0f}) px, first at {_time(int(rival.argmax()), clip)}; wanted one person: "
        f"crop the video to one of them"
    )


def _refuse_cuts(clip: Clip, seen: Detections) -> None:
    centre, size = seen.points.mean(1), _points.interocular(seen.points)
    both = seen.found[1:] & seen.found[:-1]
    jump = both & (np.linalg.norm(np.diff(centre, axis=0), axis=-1) > JUMP * np.minimum(size[1:], size[:-1]))
    thumbs = seen.thumbs
    change = np.array([cv2.absdiff(a, b).mean() for a, b in zip(thumbs[1:], thumbs[:-1], strict=True)])
    for i in np.flatnonzero(jump | (change > CUT_DIFFERENCE)):
        if jump[i] or _histogram_correlation(thumbs[i], thumbs[i + 1]) < CUT_CORRELATION:
            what = "the face jumps" if jump[i] else "the scene changes"
            raise InputError(
                f"{clip.path}: {what} at {_time(int(i) + 1, clip)} (frame {i + 1}): a cut; wanted one unbroken "
                f"shot: cut the video there and use one part"
            )


def _histogram_correlation(a: np.ndarray, b: np.ndarray) -> float:
    histograms = [cv2.calcHist([x], [0], None, [32], [0, 256]) for x in (a, b)]
    return float(cv2.compareHist(histograms[0], histograms[1], cv2.HISTCMP_CORREL))


def _longest_gap(found: np.ndarray) -> tuple[int, int]:
    edges = np.diff(np.concatenate(([1], found.astype(int), [1])))
    starts, ends = np.flatnonzero(edges == -1), np.flatnonzero(edges == 1)
    i = int((ends - starts).argmax())
    return int(starts[i]), int(ends[i])


def _time(frame: int, clip: Clip) -> str:
    return f"{frame / clip.fps:.2f} s"
