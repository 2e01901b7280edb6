"""MediaPipe's FaceLandmarker with a model file of the user's: any mediapipe, any Python, and expression scores."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsth.errors import InputError, MissingExtraError
from gsth.track.detectors import COUNT, Detector, Face

STEP_MS = 40
"""The task wants rising times; how far apart matters to nothing that is read here."""


@dataclass(frozen=True)
class Config:
    """A face_landmarker.task by path."""

    path: Path = Path("face_landmarker.task")
    """The model bundle; MediaPipe's documentation of the Face Landmarker says where to get it."""

    def build(self) -> Detector:
        """Load it. Raises InputError where it is missing or no such bundle, MissingExtraError without mediapipe."""
        if not self.path.is_file():
            raise InputError(f"{self.path}: there is no such file, wanted MediaPipe's face_landmarker.task")
        if not zipfile.is_zipfile(self.path):
            raise InputError(f"{self.path}: is not a MediaPipe task bundle, wanted face_landmarker.task; load it again")
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as error:
            raise MissingExtraError("mediapipe", "track", "tracking a face") from error
        return _Task(mediapipe, vision, lambda: BaseOptions(model_asset_path=str(self.path)), self.path)


class _Task:
    def __init__(self, mediapipe: Any, vision: Any, base: Any, path: Path) -> None:
        self._mediapipe, self._time_ms = mediapipe, 0

        def landmarker(mode: Any, faces: int) -> Any:
            options = vision.FaceLandmarkerOptions(
                base_options=base(), running_mode=mode, num_faces=faces, output_face_blendshapes=True
            )
            try:
                return vision.FaceLandmarker.create_from_options(options)
            except (RuntimeError, ValueError) as error:
                raise InputError(f"{path}: mediapipe cannot read it ({error}); load it again") from error

        self._stream = landmarker(vision.RunningMode.VIDEO, 2)
        self._single = landmarker(vision.RunningMode.IMAGE, 1)

    def follow(self, picture: np.ndarray) -> list[Face]:
        self._time_ms += STEP_MS
        return _faces(self._stream.detect_for_video(self._image(picture), self._time_ms), picture)

    def look(self, picture: np.ndarray) -> list[Face]:
        return _faces(self._single.detect(self._image(picture)), picture)

    def body(self, picture: np.ndarray) -> np.ndarray | None:
        """The bundle holds no body model."""
        return None

    def close(self) -> None:
        self._stream.close()
        self._single.close()

    def _image(self, picture: np.ndarray) -> Any:
        return self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))


def _faces(result: Any, picture: np.ndarray) -> list[Face]:
    h, w = picture.shape[:2]
    out = []
    for k, face in enumerate(result.face_landmarks):
        points = np.array([(p.x * w, p.y * h) for p in face], np.float32)
        if len(points) != COUNT:
            raise InputError(f"the task finds {len(points)} points, wanted {COUNT}: not the landmarker with irises")
        scores = {c.category_name: float(c.score) for c in result.face_blendshapes[k]}
        scores.pop("_neutral", None)
        out.append(Face(points, scores))
    return out
