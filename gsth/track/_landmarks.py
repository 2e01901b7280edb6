"""Face and shoulder landmarks of every frame, by the models inside the MediaPipe wheel (offline)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from gsth import media
from gsth.errors import MissingExtraError
from gsth.track import _points
from gsth.types import Clip, Event, Step

POSE_EVERY = 2
"""Shoulders are looked for in every second frame: they move slowly and the pose model is the dearest step."""
THUMB_PX = 64
"""Longer side of the grey thumbnails that cuts and camera motion are judged on."""
ZOOM_PX = 512
"""Side of the enlarged window in which a face that the whole frame did not show is looked for again."""


@dataclass
class Detections:
    """What was seen in each of t frames, in clip pixels; filled by ``detect``."""

    points: np.ndarray
    """Face landmarks [t 478 2]; interpolated where not found, once ``detect`` is through."""
    found: np.ndarray
    """bool [t]."""
    others: np.ndarray
    """Centre x, y and inter-ocular distance of the largest other face [t 3]; nan where there is none."""
    shoulders: np.ndarray
    """Left and right shoulder: x, y, visibility (0 where unknown) [t 2 3]."""
    thumbs: np.ndarray
    """Grey thumbnails [t h w], uint8."""
    sharpness: np.ndarray
    """Variance of the Laplacian over the face at a fixed size [t]; nan where there is no face."""
    light: np.ndarray
    """Mean grey level of the face, 0 to 255 [t]; nan where there is no face."""

    @classmethod
    def empty(cls, clip: Clip) -> Detections:
        """Nothing seen yet."""
        t, scale = clip.frames, THUMB_PX / max(clip.width, clip.height)
        thumb = (t, max(8, round(clip.height * scale)), max(8, round(clip.width * scale)))
        return cls(
            points=np.full((t, _points.COUNT, 2), np.nan, np.float32),
            found=np.zeros(t, bool),
            others=np.full((t, 3), np.nan, np.float32),
            shoulders=np.zeros((t, 2, 3), np.float32),
            thumbs=np.zeros(thumb, np.uint8),
            sharpness=np.full(t, np.nan, np.float32),
            light=np.full(t, np.nan, np.float32),
        )


def solutions() -> Any:
    """MediaPipe's ``solutions``; MissingExtraError where it is not installed."""
    try:
        import mediapipe
    except ImportError as error:
        raise MissingExtraError("mediapipe", "track", "tracking a face") from error
    return mediapipe.solutions


def detect(clip: Clip, seen: Detections) -> Iterator[Event]:
    """Look at every frame once and fill ``seen``."""
    with (
        _Faces.open() as faces,
        solutions().pose.Pose(model_complexity=1) as pose,
        ThreadPoolExecutor(1) as beside,
    ):
        for i, frame in enumerate(media.frames(clip)):
            # both models work outside Python's lock: shoulders are looked for while the face is
            body = beside.submit(faces.shoulders, frame, pose) if i % POSE_EVERY == 0 else None
            found = faces.whole_frame(frame)
            if body is not None:
                seen.shoulders[i] = body.result()
            found = found or faces.closer(frame)
            if found:
                found = faces.sorted(found)
                seen.points[i], seen.found[i] = found[0], True
                seen.sharpness[i], seen.light[i] = _quality(frame, found[0])
            if len(found) > 1:
                seen.others[i] = (*found[1].mean(0), _points.interocular(found[1]))
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            seen.thumbs[i] = cv2.resize(grey, seen.thumbs.shape[:0:-1], interpolation=cv2.INTER_AREA)
            yield Step("landmarks", i + 1, clip.frames)
    if seen.found.any():
        seen.points = interpolated(seen.points, seen.found)
    known = seen.shoulders[..., 2].min(1) > 0
    if known.any():
        seen.shoulders = interpolated(seen.shoulders, known)


def interpolated(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[t ...] with the frames that are not ``known`` [t] taken linearly from their neighbours in time."""
    t = np.arange(len(values))
    right = np.clip(np.searchsorted(t[known], t), 0, known.sum() - 1)
    left = np.clip(np.searchsorted(t[known], t, side="right") - 1, 0, None)
    a, b = t[known][left], t[known][right]
    amount = np.where(b > a, (t - a) / np.maximum(b - a, 1), 0.0).reshape(-1, *[1] * (values.ndim - 1))
    return (values[a] * (1 - amount) + values[b] * amount).astype(values.dtype)


@dataclass
class _Faces:
    """Finds faces, the tracked person's first; looks closer where the whole frame shows none."""

    whole: Any
    close: Any
    stack: ExitStack
    last: np.ndarray | None = None
    nose: np.ndarray | None = field(default=None)
    """Nose position by the pose model, px: where to look closer before a first face."""
    reach: float = 0.0

    @classmethod
    def open(cls) -> _Faces:
        mesh, stack = solutions().face_mesh.FaceMesh, ExitStack()
        whole = stack.enter_context(mesh(max_num_faces=2, refine_landmarks=True, min_detection_confidence=0.5))
        close = stack.enter_context(mesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True))
        return cls(whole, close, stack)

    def __enter__(self) -> _Faces:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def whole_frame(self, frame: np.ndarray) -> list[np.ndarray]:
        """All faces that the whole frame shows."""
        return _faces(self.whole, frame)

    def sorted(self, found: list[np.ndarray]) -> list[np.ndarray]:
        """The tracked person's face first."""
        if self.last is None:
            found.sort(key=lambda p: -float(_points.interocular(p)))
        else:
            centre = self.last.mean(0)
            found.sort(key=lambda p: float(np.linalg.norm(p.mean(0) - centre)))
        self.last = found[0]
        return found

    def shoulders(self, frame: np.ndarray, pose: Any) -> np.ndarray:
        """Left and right shoulder [2 3] as x, y px and visibility; zeros where nobody is seen."""
        seen = pose.process(frame).pose_landmarks
        if seen is None:
            return np.zeros((2, 3), np.float32)
        h, w = frame.shape[:2]
        xyv = np.array([(p.x * w, p.y * h, p.visibility) for p in seen.landmark], np.float32)
        # nose, then ears 7 and 8: a head is about twice as tall as its ears are apart, more when seen from the side
        self.nose = xyv[0, :2]
        self.reach = 2.5 * max(float(np.linalg.norm(xyv[7, :2] - xyv[8, :2])), float(np.ptp(xyv[:11, 1])), 16.0)
        return xyv[11:13]

    def closer(self, frame: np.ndarray) -> list[np.ndarray]:
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
        found = _faces(self.close, cv2.resize(window, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
        return [p / scale + np.array((x0, y0), np.float32) for p in found]


def _faces(mesh: Any, frame: np.ndarray) -> list[np.ndarray]:
    h, w = frame.shape[:2]
    found = mesh.process(frame).multi_face_landmarks or []
    return [np.array([(p.x * w, p.y * h) for p in face.landmark], np.float32) for face in found]


def _quality(frame: np.ndarray, points: np.ndarray) -> tuple[float, float]:
    """Sharpness and light of the face region, at 128 px so that the figures compare between clips."""
    h, w = frame.shape[:2]
    x0, y0 = np.clip(points.min(0), 0, (w - 2, h - 2)).astype(int)
    x1, y1 = np.clip(points.max(0), (x0 + 2, y0 + 2), (w, h)).astype(int)
    face = cv2.cvtColor(np.ascontiguousarray(frame[y0:y1, x0:x1]), cv2.COLOR_RGB2GRAY)
    face = cv2.resize(face, (128, 128), interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(face, cv2.CV_32F).var()), float(face.mean())
