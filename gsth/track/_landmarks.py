"""Face and shoulder landmarks of every frame, over chunks of the clip that are looked at side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event as Flag

import cv2
import numpy as np

from gsth import media
from gsth.errors import writes
from gsth.track import _points, _signs
from gsth.track.detectors import Detector, Face
from gsth.types import Clip, Event, Step

POSE_EVERY = 4
"""Shoulders are looked for in every fourth frame: they move slowly and the pose model is the dearest step."""
THUMB_PX = 64
"""Longer side of the grey thumbnails that cuts and camera motion are judged on."""
ZOOM_PX = 512
"""Side of the enlarged window in which a face that the whole frame did not show is looked for again."""
LOOK_PX = 1920
"""Larger pictures are brought to this for the detectors, whose own input is far smaller."""
CHUNK = 250
"""Frames of a chunk; what is through is kept, so that a stopped run goes on there."""
WARM_UP = 5
"""Frames that a chunk looks at before its first: detectors follow a face better than they find it."""


@dataclass
class Detections:
    """What was seen in t frames, in clip pixels; filled by ``detect``."""

    frame_ids: np.ndarray
    """Index of each frame in the clip, rising, int [t]."""
    points: np.ndarray
    """Face landmarks [t 478 2]; interpolated where not found, once ``bridge`` has run."""
    found: np.ndarray
    """bool [t]."""
    others: np.ndarray
    """Centre x, y and inter-ocular distance of the largest other face [t 3]; nan where there is none."""
    shoulders: np.ndarray
    """Left and right shoulder: x, y, visibility (0 where unknown) [t 2 3]."""
    thumbs: np.ndarray
    """Grey thumbnails [t h w], uint8."""
    signs: np.ndarray
    """Columns as in ``_signs.Signs`` [t s]; nan where there is no face."""
    scores: np.ndarray
    """The detector's expression scores, in the order of ``score_names`` [t e]; nan where it told none."""
    score_names: np.ndarray
    """ARKit names, empty where the detector tells no scores [e]."""

    @classmethod
    def empty(cls, clip: Clip, frame_ids: Sequence[int] | None = None) -> Detections:
        """Nothing seen yet, of all frames or of some."""
        ids = np.arange(clip.frames) if frame_ids is None else np.asarray(frame_ids)
        t, scale = len(ids), THUMB_PX / max(clip.width, clip.height)
        thumb = (t, max(8, round(clip.height * scale)), max(8, round(clip.width * scale)))
        return cls(
            frame_ids=ids,
            points=np.full((t, _points.COUNT, 2), np.nan, np.float32),
            found=np.zeros(t, bool),
            others=np.full((t, 3), np.nan, np.float32),
            shoulders=np.zeros((t, 2, 3), np.float32),
            thumbs=np.zeros(thumb, np.uint8),
            signs=np.full((t, len(_signs.UNKNOWN)), np.nan, np.float32),
            scores=np.zeros((t, 0), np.float32),
            score_names=np.zeros(0, "U32"),
        )

    def sign(self, name: str) -> np.ndarray:
        """One column of ``signs`` by name [t]."""
        return self.signs[:, _signs.Signs._fields.index(name)]

    def bridge(self) -> None:
        """Interpolate face and shoulders over the frames in which they were not seen."""
        if self.found.any():
            self.points = interpolated(self.points, self.found)
        known = self.shoulders[..., 2].min(1) > 0
        if known.any():
            self.shoulders = interpolated(self.shoulders, known)

    def first(self, count: int) -> Detections:
        """The first so many frames."""
        columns = [f.name for f in fields(Detections) if f.name != "score_names"]
        return replace(self, **{n: getattr(self, n)[:count] for n in columns})

    @staticmethod
    def joined(parts: Sequence[Detections]) -> Detections:
        """Chunks in order, as one; a chunk without any face has no scores, so names come from those that have."""
        names = max((p.score_names for p in parts), key=len)
        for part in parts:
            if len(part.score_names) < len(names):
                part.scores = np.full((len(part.frame_ids), len(names)), np.nan, np.float32)
        columns = [f.name for f in fields(Detections) if f.name != "score_names"]
        return Detections(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in columns}, score_names=names)

    def save(self, path: Path) -> None:
        """Keep in one file, whole or not at all."""
        part = path.with_suffix(".part")
        with writes(path):
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, **vars(self))
            part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Detections | None:
        """What ``save`` kept; None where nothing lies, or what a kill or a full disk damaged."""
        try:
            with np.load(path) as file:
                return cls(**dict(file))
        except Exception:  # zip and numpy have a dozen for damage, NotImplementedError among them
            return None


Build = Callable[[], Detector]


def detect(clip: Clip, build: Build, cache: Path | None = None) -> Iterator[Event | Detections]:
    """Look at every frame once; streams Step and gives the Detections, bridged, last.

    Args:
        clip: The video.
        build: Makes a detector; each chunk has its own, in a thread of its own (they work outside Python's lock).
        cache: Existing folder for finished chunks; those that lie there, and can be read, are not looked at again.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = min(CHUNK, max(WARM_UP * 10, -(-clip.frames // workers)))
    spans = [(a, min(a + size, clip.frames)) for a in range(0, clip.frames, size)]
    done, stop = SimpleQueue[int](), Flag()

    def chunk(span: tuple[int, int]) -> Detections:
        kept = None if cache is None else cache / f"{span[0]:07}_{span[1]:07}.npz"
        part = None if kept is None else Detections.load(kept)
        if part is not None:
            done.put(span[1] - span[0])
            return part
        with closing(build()) as detector:
            part = _look(clip, range(*span), detector, WARM_UP, lambda: done.put(1) or stop.is_set())
        if kept is not None and not stop.is_set():
            part.save(kept)
        return part

    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(chunk, span) for span in spans]
        try:
            through = 0
            while not all(job.done() for job in jobs) or not done.empty():
                failed = next((job for job in jobs if job.done() and job.exception()), None)
                if failed is not None:
                    failed.result()
                with suppress(Empty):
                    through += done.get(timeout=0.1)
                    yield Step("landmarks", through, clip.frames)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    seen = Detections.joined([job.result() for job in jobs])
    seen.bridge()
    yield seen


def glance(clip: Clip, build: Build, windows: Sequence[range], enough: Callable[[], bool]) -> Detections:
    """Look at some stretches of a clip, in the given order, until ``enough`` says so; at the first in any case."""
    parts: list[Detections] = []
    for window in windows:
        if parts and enough():
            break
        with closing(build()) as detector:
            parts.append(_look(clip, window, detector, 0, enough if parts else lambda: False))
    seen = Detections.joined(sorted(parts, key=lambda p: int(p.frame_ids[0])))
    seen.bridge()
    return seen


def _look(clip: Clip, span: range, detector: Detector, warm_up: int, stopped: Callable[[], bool]) -> Detections:
    """Look at neighbouring frames; ``stopped`` is asked after each, and ends it with those looked at."""
    seen = Detections.empty(clip, list(span))
    person = Person(detector)
    start = max(0, span.start - warm_up)
    for i, frame in enumerate(media.frames(clip, start, span.stop), start - span.start):
        scale = min(1.0, LOOK_PX / max(frame.shape[:2]))
        small = frame if scale == 1 else cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        shoulders = person.shoulders(small) if i % POSE_EVERY == 0 else None
        found = person.faces(small)
        if i < 0:
            continue
        if shoulders is not None:
            seen.shoulders[i] = shoulders / (scale, scale, 1)
        if found:
            seen.points[i], seen.found[i] = found[0].points / scale, True
            seen.signs[i] = _signs.of(small, found[0].points)
            _note_scores(seen, i, found[0])
        if len(found) > 1:
            other = found[1].points / scale
            seen.others[i] = (*other.mean(0), _points.interocular(other))
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        seen.thumbs[i] = cv2.resize(grey, seen.thumbs.shape[:0:-1], interpolation=cv2.INTER_AREA)
        if stopped():
            return seen.first(i + 1)
    return seen


def _note_scores(seen: Detections, i: int, face: Face) -> None:
    if face.scores is None:
        return
    if not len(seen.score_names):
        seen.score_names = np.array(sorted(face.scores))
        seen.scores = np.full((len(seen.found), len(face.scores)), np.nan, np.float32)
    seen.scores[i] = [face.scores.get(str(name), np.nan) for name in seen.score_names]


def interpolated(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[t ...] with the frames that are not ``known`` [t] taken linearly from their neighbours in time."""
    t = np.arange(len(values))
    right = np.clip(np.searchsorted(t[known], t), 0, known.sum() - 1)
    left = np.clip(np.searchsorted(t[known], t, side="right") - 1, 0, None)
    a, b = t[known][left], t[known][right]
    amount = np.where(b > a, (t - a) / np.maximum(b - a, 1), 0.0).reshape(-1, *[1] * (values.ndim - 1))
    return (values[a] * (1 - amount) + values[b] * amount).astype(values.dtype)


@dataclass
class Person:
    """Finds faces, the tracked person's first; looks closer where the whole frame shows none."""

    detector: Detector
    last: np.ndarray | None = None
    nose: np.ndarray | None = field(default=None)
    """Nose position by the pose model, px: where to look closer before a first face."""
    reach: float = 0.0

    def faces(self, frame: np.ndarray) -> list[Face]:
        """The tracked person's face, then another."""
        found = self.detector.follow(frame) or self._closer(frame)
        if not found:
            return []
        if self.last is None:
            found.sort(key=lambda f: -float(_points.interocular(f.points)))
        else:
            centre = self.last.mean(0)
            found.sort(key=lambda f: float(np.linalg.norm(f.points.mean(0) - centre)))
        self.last = found[0].points
        return found

    def shoulders(self, frame: np.ndarray) -> np.ndarray:
        """Left and right shoulder [2 3] as x, y px and visibility; zeros where nobody is seen."""
        xyv = self.detector.body(frame)
        if xyv is None:
            return np.zeros((2, 3), np.float32)
        # nose, then ears 7 and 8: a head is about twice as tall as its ears are apart, more when seen from the side
        self.nose = xyv[0, :2]
        self.reach = 2.5 * max(float(np.linalg.norm(xyv[7, :2] - xyv[8, :2])), float(np.ptp(xyv[:11, 1])), 16.0)
        return xyv[11:13]

    def _closer(self, frame: np.ndarray) -> list[Face]:
        """The face in an enlarged window around where it last was, or where the pose model saw the nose."""
        if self.last is not None:
            centre, reach = self.last.mean(0), 2.5 * float(_points.interocular(self.last))
        elif self.nose is not None:
            centre, reach = self.nose, self.reach
        else:
            return []
        h, w = frame.shape[:2]
        x0, y0 = np.clip(centre - reach, 0, (w - 2, h - 2)).astype(int)
        x1, y1 = np.clip(centre + reach, (x0 + 2, y0 + 2), (w, h)).astype(int)
        window = frame[y0:y1, x0:x1]
        scale = ZOOM_PX / max(window.shape[:2])
        found = self.detector.look(cv2.resize(window, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
        return [Face(f.points / scale + np.array((x0, y0), np.float32), f.scores) for f in found]
