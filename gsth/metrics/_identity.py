"""Is it the same person: cosine similarity of face embeddings (CSIM).

dlib's network comes offline in a wheel; its embeddings of any two people already have a cosine near 0.9, so its
distance (0.6 is the package's own limit for one person) stands beside it. ArcFace is an ONNX file by path.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gsth.errors import InputError, MissingExtraError
from gsth.metrics import _weights
from gsth.metrics._image import Picture
from gsth.metrics._points import FACE, Points

ARCFACE_FILES = ("arcface.onnx", "w600k_r50.onnx", "glintr100.onnx")
_TEMPLATE = np.array(
    ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
)
"""Eyes, tip of the nose and corners of the mouth in ArcFace's 112 px crop, the person's right first."""
_CROP = 112
_EYE_R, _EYE_L, _NOSE, _MOUTH = (33, 133), (362, 263), 1, (61, 291)


class Embedder(Protocol):
    """Turns a face into a vector."""

    def __call__(self, picture: Picture, landmarks: Points) -> NDArray[np.float64]:
        """The vector of the face that the 478 landmarks [l 2], px, mark in a uint8 picture."""
        ...


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Cosine of the angle between two vectors."""
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@cache
def dlib_embedder() -> Embedder:
    """dlib's 128 values (King 2017), aligned by its five points inside the landmarks' bounds.

    Raises:
        MissingExtraError: dlib-bin or face-recognition-models is absent.
    """
    purpose = "the measure CSIM (identity)"
    try:
        dlib: Any = importlib.import_module("dlib")
    except ImportError as error:
        raise MissingExtraError("dlib-bin", "eval", purpose) from error
    folder = ("face_recognition_models", "face-recognition-models", "models")
    five = _weights.packaged(*folder, "shape_predictor_5_face_landmarks.dat", purpose=purpose)
    net = _weights.packaged(*folder, "dlib_face_recognition_resnet_model_v1.dat", purpose=purpose)
    predictor, encoder = dlib.shape_predictor(str(five)), dlib.face_recognition_model_v1(str(net))

    def embed(picture: Picture, landmarks: Points) -> NDArray[np.float64]:
        (x0, y0), (x1, y1) = landmarks[FACE].min(0), landmarks[FACE].max(0)
        box = dlib.rectangle(*(round(float(v)) for v in (x0, y0, x1, y1)))
        picture = np.ascontiguousarray(picture)
        return np.array(encoder.compute_face_descriptor(picture, predictor(picture, box)))

    return embed


class ArcFace:
    """ArcFace (Deng et al. 2019) from an ONNX file: one input [1 3 112 112], one embedding out."""

    def __init__(self, folder: Path | None) -> None:
        """Load the first of ``ARCFACE_FILES`` in the folder.

        Raises:
            WeightsAbsentError: None of them is there.
            MissingExtraError: onnxruntime is absent.
            InputError: The file is no such network.
        """
        path = _weights.given(folder, *ARCFACE_FILES, purpose="CSIM by ArcFace")
        try:
            runtime: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "eval", "CSIM by ArcFace") from error
        try:
            self._session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has exception classes of its own for every cause
            raise InputError(f"{path}: cannot be read as an ONNX network ({error}); download it again") from error
        wanted = [*self._session.get_inputs()[0].shape[1:]]
        if wanted != [3, _CROP, _CROP]:
            raise InputError(f"{path}: takes {wanted}, ArcFace takes [3, {_CROP}, {_CROP}]; choose another file")

    def __call__(self, picture: Picture, landmarks: Points) -> NDArray[np.float64]:
        """As ``Embedder``."""
        crop = aligned(picture, landmarks).astype(np.float32)
        batch = ((crop - 127.5) / 127.5).transpose(2, 0, 1)[None]
        name = self._session.get_inputs()[0].name
        return np.asarray(self._session.run(None, {name: batch})[0][0], dtype=np.float64)


def aligned(picture: Picture, landmarks: Points) -> Picture:
    """The face as ArcFace wants it, uint8 [112 112 3]: five points put onto its template by a similarity."""
    import cv2

    five = [landmarks[list(eye)].mean(0) for eye in (_EYE_R, _EYE_L)]
    five += [landmarks[_NOSE], *landmarks[list(_MOUTH)]]
    z, w = np.array(five) @ (1, 1j), _TEMPLATE @ (1, 1j)
    turn = (np.conj(z - z.mean()) @ (w - w.mean())) / (np.abs(z - z.mean()) ** 2).sum()
    shift = w.mean() - turn * z.mean()
    matrix = np.array(((turn.real, -turn.imag, shift.real), (turn.imag, turn.real, shift.imag)))
    return np.asarray(cv2.warpAffine(picture, matrix, (_CROP, _CROP), flags=cv2.INTER_LINEAR))
