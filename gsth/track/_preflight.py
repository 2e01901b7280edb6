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
SIDE_LIGHT, GLASSES = 2.2, 0.45
"""One cheek so many times brighter than the other; skin around the eyes so much darker than the cheeks."""
LIPS_SEEN, LIPS_HIDDEN = 4.0, 0.4
"""Redness of the lips (CIELAB a* above the cheeks') that a clip needs to tell, and which share of it means hidden."""
WINDOWS, WINDOW = 16, 12
"""Stretches that a quick look takes from a clip, and their frames, at most."""
HIDDEN_S = 0.15
"""Shorter than this, pale lips are lips pressed together."""


def windows(frames: int) -> list[range]:
    """Stretches of a clip to look at, the most telling first: ends, middle, then what lies between (van der Corput).

    Together they are at most ``WINDOWS * WINDOW`` frames; those of a shorter clip are the whole of it.
    """
    count = min(WINDOWS, -(-frames // WINDOW))
    order = dict.fromkeys((0, count - 1, *sorted(range(count), key=lambda i: int(f"{i:04b}"[::-1], 2))))
    if frames <= WINDOWS * WINDOW:
        return [range(i * frames // count, (i + 1) * frames // count) for i in order]
    starts = [round(i / (WINDOWS - 1) * (frames - WINDOW)) for i in order]
    return [range(a, a + WINDOW) for a in starts]


def judge(clip: Clip, seen: Detections) -> Iterator[Notice]:
    """Say what is wrong with a clip, from all of its frames or from some.

    Raises:
        InputError: Too short, no face, a face in too few frames, two people, or more than one scene.
    """
    _refuse_faceless(clip, seen)
    _refuse_crowd(clip, seen)
    _refuse_cuts(clip, seen)
    for text in (*_small_or_slow(clip, seen), *_badly_lit(seen), *_hidden(clip, seen)):
        yield Notice(f"{clip.path}: {text}")


def refuse_untaught(clip: Clip, seen: Detections, train_frames: int) -> None:
    """Refuse a clip whose training part, its first so many frames, shows nobody to learn from."""
    if not seen.found[:train_frames].any():
        raise InputError(
            f"{clip.path}: no face in the part to learn from, the first {train_frames} of {clip.frames} frames (to "
            f"{_time(train_frames, clip)}); the first one is at {_time(int(seen.found.argmax()), clip)}: hold out less "
            f"(--holdout), or cut the clip to the part where the face is seen"
        )


def _small_or_slow(clip: Clip, seen: Detections) -> Iterator[str]:
    size = float(np.median(_points.interocular(seen.points[seen.found])))
    if size < SMALL_FACE_PX:
        yield (
            f"the face is small ({size:.0f} px between the outer eye corners); "
            f"from {SMALL_FACE_PX:.0f} px on, details come out: film closer or in a higher resolution"
        )
    if clip.fps < LOW_FPS:
        yield f"{clip.fps:.3g} frames/s is low; lips and blinks need 25 or more"
    if clip.wav is None:
        yield "there is no sound; the avatar cannot learn how this person speaks"


def _badly_lit(seen: Detections) -> Iterator[str]:
    sharp, light, side = (float(np.nanmedian(seen.sign(name))) for name in ("sharpness", "light", "side"))
    if sharp < BLURRED:
        yield "the face is blurred; check focus and shutter, the avatar will be as soft"
    if light < DARK:
        yield f"the face is dark (grey level {light:.0f} of 255); light it from the front"
    if side > SIDE_LIGHT:
        yield (
            f"strong light from one side (one cheek is {side:.1f} times brighter): it will be part of the avatar's "
            f"skin and not turn with the head; film in even light from the front"
        )


def _hidden(clip: Clip, seen: Detections) -> Iterator[str]:
    if float(np.nanmedian(seen.sign("eyes"))) < GLASSES:
        yield (
            "the eyes are hidden (dark glasses?): gaze and blinks will be guesses, and the avatar wears the glasses; "
            "film without them"
        )
    lost = int((~seen.found).sum())
    if lost:
        of_all = "" if len(seen.found) == clip.frames else " looked at"
        yield f"no face in {lost} of {len(seen.found)} frames{of_all}; their motion is interpolated"
    spans = _runs(mouth_hidden(seen, clip.fps))
    if spans:
        a, b = max(spans, key=lambda s: s[1] - s[0])
        times = f"{_time(seen.frame_ids[a], clip)} to {_time(seen.frame_ids[b - 1] + 1, clip)}"
        yield (
            f"something covers the mouth at {times}"
            + (f" and at {len(spans) - 1} other place(s)" if len(spans) > 1 else "")
            + ": what the lips do there is a guess; --drop-bad-frames keeps training away from it"
        )


def mouth_hidden(seen: Detections, fps: float) -> np.ndarray:
    """Frames in which the lips are not as red as they usually are, for a while: a hand, a cup; bool [t].

    Tells nothing (all False) of black-and-white clips and of lips that are as pale as the cheeks.
    """
    lips = seen.sign("lips")
    usual = np.nanmedian(lips) if np.isfinite(lips).any() else 0.0
    if usual < LIPS_SEEN:
        return np.zeros(len(lips), bool)
    with np.errstate(invalid="ignore"):
        pale = lips < LIPS_HIDDEN * usual
    out = np.zeros(len(lips), bool)
    for a, b in _runs(pale):
        out[a:b] = b - a >= max(2, HIDDEN_S * fps)
    return out


def _refuse_faceless(clip: Clip, seen: Detections) -> None:
    count, looked = int(seen.found.sum()), len(seen.found)
    usable, whole = count + clip.frames - looked, looked == clip.frames  # what was not looked at may all show a face
    if count == 0:
        of_all = f"its {clip.frames}" if whole else f"{looked} (of {clip.frames}) looked at"
        raise InputError(
            f"{clip.path}: no face was found in any of {of_all} frames; wanted one person who faces the "
            f"camera (turned no further than about 60 degrees), lit from the front, upright, head and shoulders in the "
            f"picture"
        )
    if usable < MIN_FRAMES and clip.frames < 2 * MIN_FRAMES:
        raise InputError(
            f"{clip.path}: too short: {'' if whole else 'at most '}{usable} usable frames ({clip.frames} in all), "
            f"wanted at least {MIN_FRAMES}; record a few seconds of speech"
        )
    if count < MIN_SHARE * looked:
        a, b = max(_runs(~seen.found), key=lambda gap: gap[1] - gap[0])
        times = f"{_time(seen.frame_ids[a], clip)} to {_time(seen.frame_ids[b - 1] + 1, clip)}"
        raise InputError(
            f"{clip.path}: a face was found in {count} of {looked} frames{'' if whole else ' looked at'} only, wanted "
            f"at least half; the longest gap is {times}: cut the clip to the part where the face is seen"
        )


def _refuse_crowd(clip: Clip, seen: Detections) -> None:
    own = _points.interocular(seen.points)
    rival = seen.others[:, 2] > RIVAL_SIZE * own
    if rival.mean() <= RIVAL_SHARE:
        return
    one, two = np.median(seen.points[rival].mean(1), 0), np.median(seen.others[rival, :2], 0)
    raise InputError(
        f"{clip.path}: two faces in {rival.mean():.0%} of the frames, about at ({one[0]:.0f}, {one[1]:.0f}) and "
        f"({two[0]:.0f}, {two[1]:.0f}) px, first at {_time(seen.frame_ids[rival.argmax()], clip)}; wanted one person: "
        f"crop the video to one of them"
    )


def _refuse_cuts(clip: Clip, seen: Detections) -> None:
    centre, size = seen.points.mean(1), _points.interocular(seen.points)
    next_to = np.diff(seen.frame_ids) == 1
    both = seen.found[1:] & seen.found[:-1] & next_to
    jump = both & (np.linalg.norm(np.diff(centre, axis=0), axis=-1) > JUMP * np.minimum(size[1:], size[:-1]))
    thumbs = seen.thumbs
    change = np.array([cv2.absdiff(a, b).mean() for a, b in zip(thumbs[1:], thumbs[:-1], strict=True)])
    for i in np.flatnonzero(jump | (next_to & (change > CUT_DIFFERENCE))):
        if jump[i] or _histogram_correlation(thumbs[i], thumbs[i + 1]) < CUT_CORRELATION:
            what = "the face jumps" if jump[i] else "the scene changes"
            frame = seen.frame_ids[i + 1]
            raise InputError(
                f"{clip.path}: {what} at {_time(frame, clip)} (frame {frame}): a cut; wanted one unbroken "
                f"shot: cut the video there and use one part"
            )


def _histogram_correlation(a: np.ndarray, b: np.ndarray) -> float:
    histograms = [cv2.calcHist([x], [0], None, [32], [0, 256]) for x in (a, b)]
    return float(cv2.compareHist(histograms[0], histograms[1], cv2.HISTCMP_CORREL))


def _runs(chosen: np.ndarray) -> list[tuple[int, int]]:
    """Start and end (not included) of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], chosen.astype(int), [0]))))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _time(frame: int | np.integer, clip: Clip) -> str:
    return f"{frame / clip.fps:.2f} s"
