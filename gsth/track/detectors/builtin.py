"""The models inside the wheels of MediaPipe up to 0.10.21: offline, face and body, no expression scores."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from gsth.errors import InputError, MissingExtraError
from gsth.track.detectors import Detector, Face

PYTHON = sys.version_info[:2]
LAST_PYTHON = (3, 12)
"""There are no wheels with models for later ones."""


@dataclass(frozen=True)
class Config:
    """MediaPipe with the models in its wheel, best 0.10.14; it has no options."""

    def build(self) -> Detector:
        """Load the models. Raises MissingExtraError without mediapipe, InputError for one without models."""
        return _Solutions()


def solutions() -> Any:
    """MediaPipe's ``solutions``.

    Raises:
        MissingExtraError: mediapipe is not installed.
        InputError: It is too new: those after 0.10.21 ship no models.
    """
    try:
        import mediapipe
    except ImportError as error:
        raise MissingExtraError("mediapipe", "track", "tracking a face") from error
    found = getattr(mediapipe, "solutions", None)
    if found is None:
        last, here = (".".join(map(str, v)) for v in (LAST_PYTHON, PYTHON))
        old = "install mediapipe 0.10.14"
        if PYTHON > LAST_PYTHON:
            old = f"use Python {last} (this is {here}), for which there is mediapipe 0.10.14"
        raise InputError(
            f"mediapipe {mediapipe.__version__} ships no models; {old}, or give the path of a face_landmarker.task "
            f"with --face-landmarker, and --no-matte"
        )
    return found


class _Solutions:
    def __init__(self) -> None:
        models = solutions()
        mesh = models.face_mesh.FaceMesh
        self._stream = mesh(max_num_faces=2, refine_landmarks=True, min_detection_confidence=0.5)
        self._single = mesh(static_image_mode=True, max_num_faces=1, refine_landmarks=True)
        self._pose = models.pose.Pose(model_complexity=1)

    def follow(self, picture: np.ndarray) -> list[Face]:
        return _faces(self._stream, picture)

    def look(self, picture: np.ndarray) -> list[Face]:
        return _faces(self._single, picture)

    def body(self, picture: np.ndarray) -> np.ndarray | None:
        seen = self._pose.process(picture).pose_landmarks
        if seen is None:
            return None
        h, w = picture.shape[:2]
        return np.array([(p.x * w, p.y * h, p.visibility) for p in seen.landmark], np.float32)

    def close(self) -> None:
        for model in (self._stream, self._single, self._pose):
            model.close()


def _faces(mesh: Any, picture: np.ndarray) -> list[Face]:
    h, w = picture.shape[:2]
    found = mesh.process(picture).multi_face_landmarks or []
    return [Face(np.array([(p.x * w, p.y * h) for p in face.landmark], np.float32)) for face in found]
