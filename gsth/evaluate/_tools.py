"""The instruments: landmark detector, person mask, and the measures that need packages or weights."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gsth import metrics, registry
from gsth.errors import GsthError, InputError, MissingExtraError
from gsth.evaluate._config import EvalConfig
from gsth.metrics import Picture, Points

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")


class Tools:
    """All instruments, loaded once; a context manager. What cannot be had is in ``absent`` with the reason."""

    def __init__(self, config: EvalConfig) -> None:
        self.absent: dict[str, str] = {}
        self.thorough = config.thorough
        self._stack = ExitStack()
        solutions = _solutions()
        self._mesh = self._stack.enter_context(
            solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True, max_num_faces=1)
        )
        self._person = self._stack.enter_context(solutions.selfie_segmentation.SelfieSegmentation(model_selection=0))
        w, slow = config.weights, config.thorough
        self.st_lpips = self._get(slow, ("st_lpips", "face_st_lpips"), metrics.st_lpips)
        self.lpips = self._get(slow, ("lpips",), lambda: metrics.lpips(w))
        self.flip = self._get(slow, ("flip", "face_flip", "mouth_flip", "foreground_flip"), _flip)
        self.niqe = self._get(slow, ("niqe",), _niqe)
        self.dlib = self._get(slow, ("csim", "identity_distance"), metrics.dlib_embedder)
        self.arcface = self._get(slow, ("csim_arcface",), lambda: metrics.ArcFace(w))
        self.inception = self._get(slow, ("fid",), lambda: metrics.Inception(w))
        self.syncnet = self._get(slow, ("lse_c", "lse_d"), lambda: metrics.SyncNet(w))
        self.lip_reader = self._get(slow, ("word_accuracy",), _lip_reader)

    def _get(self, wanted: bool, measures: tuple[str, ...], make: Callable[[], T]) -> T | None:
        if not wanted:
            return None
        try:
            return make()
        except (MissingExtraError, metrics.WeightsAbsentError) as error:
            self.absent |= dict.fromkeys(measures, str(error))
            return None

    def __enter__(self) -> Tools:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def landmarks(self, picture: Picture) -> Points:
        """Landmarks [478 2], px; all NaN where no face is found.

        Each picture for itself: what one frame gives must not depend on the one before.
        """
        faces = self._mesh.process(picture).multi_face_landmarks
        if not faces:
            return np.full((478, 2), np.nan)
        size = np.array((picture.shape[1], picture.shape[0]), dtype=np.float64)
        return np.array([(p.x, p.y) for p in faces[0].landmark]) * size

    def person(self, picture: Picture) -> NDArray[np.bool_]:
        """Where the person is, [h w]."""
        return np.asarray(self._person.process(picture).segmentation_mask > 0.5)


class LipReaderAbsentError(metrics.WeightsAbsentError):
    """No lip reader is installed."""


def needed(package: str) -> Any:
    """Import a package of the extra [eval]."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, "eval", "scoring an avatar against its video") from error


def _solutions() -> Any:
    mediapipe = needed("mediapipe")
    if not hasattr(mediapipe, "solutions"):
        raise InputError(
            f"mediapipe {mediapipe.__version__} ships no models, and scoring finds faces with those of 0.10.14: "
            f"install that one (Python up to 3.12)"
        )
    return mediapipe.solutions


def _flip() -> Callable[[Picture, Picture], NDArray[np.float32]]:
    if importlib.util.find_spec("flip_evaluator") is None:
        raise MissingExtraError("flip-evaluator", "eval", "the FLIP measure")
    return metrics.flip_map


def _niqe() -> Callable[[Picture], float]:
    metrics.natural_statistics()
    return metrics.niqe


def _lip_reader() -> Any:
    """The first lip reader that an installed package registers (entry points ``gsth.lipread``)."""
    names = registry.names("lipread")
    if not names:
        raise LipReaderAbsentError("no lip reader is installed; a package may register one as gsth.lipread")
    try:
        return registry.plugin("lipread", names[0])().build()
    except ImportError as error:
        raise GsthError(f"the lip reader {names[0]!r} cannot be loaded ({error})") from error
