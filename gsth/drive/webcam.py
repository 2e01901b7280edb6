"""Drive an avatar live by a camera (or a video file in its place)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gsth.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from gsth.avatar import Avatar
    from gsth.types import Motion

_CALIBRATION_FRAMES = 24
_PATIENCE = 150
"""Frames without a face before calibration gives up."""


@dataclass(frozen=True)
class Config:
    """Motion of a face before a camera: look into it for a second with a neutral face, then move."""

    source: str = "0"
    """Number of the camera, or a video file."""
    seconds: float = 10.0
    """How long to film after calibration; a file may end before."""
    pose: Literal["relative", "absolute", "none"] = "relative"
    """Head pose: turns from the mean as the person's, or the very pose, or the avatar's mean, still."""
    gain: float = 1.0
    """Factor on the expressions' way from rest, 0 to 2."""

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= 24 * 3600 or not 0 <= self.gain <= 2:
            raise InputError(f"seconds {self.seconds} and gain {self.gain}: want over 0 up to a day, and 0 to 2")

    def build(self, avatar: Avatar) -> WebcamDriver:
        """Open the camera.

        Raises:
            InputError: There is no such camera or file.
            MissingExtraError: mediapipe (with its OpenCV) is not installed.
        """
        try:
            import cv2
        except ImportError as e:
            raise MissingExtraError("mediapipe", "track", "the webcam driver") from e
        name: Any = int(self.source) if self.source.isdigit() else self.source
        camera = cv2.VideoCapture(name)
        if not camera.isOpened():
            raise InputError(f"{self.source}: there is no such camera or video file, or another program uses it")
        return WebcamDriver(avatar, camera, self)


class WebcamDriver:
    """Carries the face before a camera over to an avatar, frame by frame."""

    sound = None

    def __init__(self, avatar: Avatar, camera: Any, config: Config) -> None:
        self._avatar, self._camera, self._config = avatar, camera, config

    def stream(self) -> Iterator[Motion]:
        """One frame of motion for each of the camera's, as soon as it is seen; the first comes after calibration.

        A frame without a face repeats the one before.

        Raises:
            InputError: No face is seen for some seconds.
        """
        import cv2

        from gsth.drive._live_face import LiveFace

        camera = self._camera
        fps = camera.get(cv2.CAP_PROP_FPS) or 30.0
        size = (int(camera.get(cv2.CAP_PROP_FRAME_WIDTH)), int(camera.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        face = LiveFace(self._avatar.head, *size, fps)
        try:
            carry = self._calibrated(face)
            last: Motion | None = None
            for _ in range(round(self._config.seconds * fps)):
                picture = self._picture()
                if picture is None:
                    return
                points = face.landmarks(picture)
                if points is not None:
                    last = carry(face.motion(points, face.tongue(picture, points)))
                if last is not None:
                    yield last
        finally:
            face.close()
            camera.release()

    def _calibrated(self, face: Any) -> Any:
        """Fit the face on its first frames, and take them as its neutral."""
        import numpy as np
        import torch

        from gsth.drive._retarget import Retarget

        seen: list[np.ndarray] = []
        for _ in range(_PATIENCE + _CALIBRATION_FRAMES):
            picture = self._picture()
            if picture is None:
                break
            points = face.landmarks(picture)
            if points is not None:
                seen.append(points)
            if len(seen) == _CALIBRATION_FRAMES:
                break
        if len(seen) < _CALIBRATION_FRAMES:
            raise InputError(
                f"{self._config.source}: {len(seen)} of the first frames show a face, calibration needs "
                f"{_CALIBRATION_FRAMES}; look into the camera, in even light"
            )
        face.calibrate(np.stack(seen))
        frames = [face.motion(points) for points in seen]
        parts = {n: torch.cat([getattr(m, n) for m in frames]) for n in ("expr", "joints", "T_world_head")}
        return Retarget.of(frames[0].replace(**parts), self._avatar, self._config.pose, self._config.gain)

    def _picture(self) -> Any:
        """The next picture as RGB; None at the end."""
        import cv2

        good, picture = self._camera.read()
        return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if good else None
