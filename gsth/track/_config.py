"""What a user can choose about tracking. Imports no torch, so that ``--help`` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gsth.errors import InputError


@dataclass(frozen=True)
class TrackConfig:
    """How a clip is tracked."""

    size: int = 512
    """Width and height of the crop that training sees, px."""
    holdout: float = 0.2
    """Share of the frames, at the end, that neither tracking's identity nor training may learn from."""
    head: str = "builtin"
    """Head model: builtin, or flame with a file of your own."""
    flame_path: Path | None = None
    """FLAME model file (2020, 2023 or 2023 Open; .npz or .pkl), for --head flame; remembered once read."""
    face_landmarker: Path | None = None
    """MediaPipe's face_landmarker.task; without it the models inside mediapipe's wheel find the face (0.10.14 has them,
    later ones and those for Python 3.13 do not; --no-matte then, too)."""
    focal_px: float | None = None
    """Focal length of the camera, px of the clip (mm x width of the clip / width of the sensor in mm), where known: a
    face alone tells distance and focal length apart poorly."""
    film_lens: bool = True
    """Take the focal length from the tags of the film where it has some (phones write them); off: for a film that was
    cropped or zoomed since."""
    drop_bad_frames: bool = False
    """Keep training away from the frames that the report calls bad; their motion is bridged from their neighbours."""
    matte: bool = True
    """Separate the person from the background; off: everything counts as person and there is no plate."""
    photometric: bool = True
    """Refine identity and motion against the pictures, after landmarks; off: landmarks alone, somewhat faster."""
    report: bool = True
    """Write report.html and overlay.mp4 into the track."""

    def __post_init__(self) -> None:
        if not 64 <= self.size <= 2048:
            raise InputError(f"size: {self.size} px is out of range, wanted 64 to 2048")
        if self.focal_px is not None and not 0 < self.focal_px < float("inf"):
            raise InputError(f"focal_px: {self.focal_px} px is no focal length, wanted a number above 0")
        if self.flame_path is not None and self.head != "flame":
            raise InputError(f"flame_path: {self.flame_path} was given, the head is {self.head!r}; add --head flame")
        if not 0 <= self.holdout < 1:
            raise InputError(f"holdout: {self.holdout} is out of range, wanted 0 up to (not including) 1")

    def train_frames(self, frames: int) -> int:
        """How many of the frames, from the start, may be learned from; at least 1."""
        return max(1, frames - round(frames * self.holdout))
