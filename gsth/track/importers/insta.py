"""metrical-tracker's output, which is what INSTA, FlashAvatar and SplattingAvatar train on.

``checkpoint/*.frame`` (a torch file: ``flame`` with exp, shape, eyes, eyelids, jaw; ``opencv`` with R, t, K; img_size,
frame_id) and the pictures, in ``input/`` of the tracker, or in ``images/`` (with alpha, or ``seg_mask/``) of INSTA.
Source: https://github.com/Zielon/metrical-tracker, tracker.py, and https://github.com/Zielon/INSTA,
scripts/transforms.py.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gsth.errors import InputError
from gsth.head import restricted
from gsth.track.importers import FlameMotion, Foreign, _files

FPS = 25.0
"""metrical-tracker extracts frames at this rate unless told otherwise; nothing in its output says."""
TRAIN = "transforms_train.json"
TEST_FRAMES = 350
"""INSTA holds out so many at the end."""
CAMERA = {"R": (1, 3, 3), "t": (1, 3), "K": (1, 3, 3)}
PICTURES = ("images", "input", "imgs")


@dataclass(frozen=True)
class Config:
    """A folder of metrical-tracker or INSTA."""

    folder: Path
    """With checkpoint/."""

    @classmethod
    def knows(cls, folder: Path) -> bool:
        """Whether it has checkpoints, or INSTA's transforms that come of them, or its pictures and nobody's else."""
        if (folder / "checkpoint").is_dir() or "exp_path" in _files.peek(folder / TRAIN):
            return True
        others = any((folder / n).is_dir() for n in ("flame_param", "fg_masks", "sparse"))  # VHAP's, COLMAP's
        others = others or any(folder.glob("transforms*.json"))
        return not others and any((folder / name).is_dir() for name in PICTURES)

    def build(self) -> Foreign:
        """Read it. InputError names what is missing."""
        checkpoints = self._checkpoints()
        frames = [_checkpoint(path) for path in checkpoints]
        pictures = self._pictures([p.stem for p in checkpoints])
        masks = tuple(self.folder / "seg_mask" / f"{p.stem}.png" for p in pictures)
        transparent = _files.unchanged(pictures[0]).shape[2:] == (4,)
        has_masks = all(m.is_file() for m in masks)
        split = max(len(frames) - TEST_FRAMES, round(0.8 * len(frames)), 1)
        return Foreign(
            folder=self.folder,
            pictures=pictures,
            picture=_files.picture,
            mattes=pictures if transparent else masks if has_masks else None,
            matte=_files.grey if transparent or has_masks else None,
            plate=None,
            sound=None,
            fps=FPS,
            K=np.median([f["K"] for f in frames], axis=0),
            # metrical-tracker's own output is not split
            train_frames=split if (self.folder / TRAIN).is_file() else None,
            motion=_motion(frames),
            notices=(f"{self.folder}: names no frame rate; {FPS:g}/s is taken",),
        )

    def _checkpoints(self) -> list[Path]:
        folder = self.folder / "checkpoint"
        found = sorted(folder.glob("*.frame"))
        if len(found) < 2:
            what = f"holds {len(found)} .frame files" if folder.is_dir() else "is missing"
            raise InputError(
                f"{folder}: {what}; pictures, transforms and meshes alone do not hold the expressions' jaw and eyes: "
                f"copy metrical-tracker's checkpoint folder here, or give the video itself"
            )
        return found

    def _pictures(self, stems: list[str]) -> tuple[Path, ...]:
        for name in PICTURES:
            for ending in ("png", "jpg"):
                found = tuple(self.folder / name / f"{stem}.{ending}" for stem in stems)
                if found[0].is_file():
                    _files.wanted(found, "each checkpoint needs its picture")
                    return found
        raise InputError(
            f"{self.folder / 'input' / stems[0]}.png: is missing, and so is images/{stems[0]}.png; metrical-tracker "
            f"writes input/, INSTA images/: copy one of them here"
        )


def _checkpoint(path: Path) -> dict[str, np.ndarray]:
    """What is used of one .frame file."""
    raw = _torch_file(path)
    flame, camera = (_files.key(raw, n, path) for n in ("flame", "opencv"))
    sizes = {"exp": -1, "shape": -1, "eyes": 12, "jaw": 6, "eyelids": 2}
    out = {n: _array(flame, n, (1, k), path)[0] for n, k in sizes.items()}
    return out | {n: _array(camera, n, shape, path)[0] for n, shape in CAMERA.items()}


def _array(mapping: Any, name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    value = _files.key(mapping, name, path)
    if not isinstance(value, np.ndarray):  # lists of a pickle may hold one another, and never come to an end
        raise InputError(f"{path}: {name} is a {type(value).__name__}, wanted an array")
    return _files.array(value, shape, f"{path}: {name}")


def _torch_file(path: Path) -> dict[str, Any]:
    """A ``torch.save`` of numpy arrays: the pickle inside, by the unpickler that admits nothing else."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = next((p for p in archive.infolist() if p.filename.endswith("data.pkl")), None)
            if part is None or part.file_size > restricted.MAX_NPZ_BYTES:
                raise ValueError(f"no data.pkl of at most {restricted.MAX_NPZ_BYTES} bytes")
            data = archive.read(part)
    except Exception as error:  # zipfile and zlib raise anything on damaged files
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: is not a file of torch.save ({reason}); copy it again") from error
    raw = restricted.unpickled(io.BytesIO(data), str(path))
    if not isinstance(raw, dict):
        raise InputError(f"{path}: holds a {type(raw).__name__}, wanted metrical-tracker's dictionary")
    return raw


def _motion(frames: list[dict[str, np.ndarray]]) -> FlameMotion:
    t = len(frames)
    view = np.tile(np.eye(4), (t, 1, 1))
    view[:, :3, :3] = np.stack([f["R"] for f in frames])
    view[:, :3, 3] = np.stack([f["t"] for f in frames])
    eyes = np.stack([f["eyes"].reshape(2, 6) for f in frames])
    return FlameMotion(
        shape=frames[0]["shape"],
        offsets=None,
        expr=np.stack([f["exp"] for f in frames]),
        neck=np.zeros((t, 3)),
        jaw=_rotvecs(np.stack([f["jaw"] for f in frames])),
        eyes=np.stack([_rotvecs(eyes[:, k]) for k in (0, 1)], 1),
        eyelids=np.stack([f["eyelids"] for f in frames]),
        turn=np.tile(np.eye(3), (t, 1, 1)),
        shift=np.zeros((t, 3)),
        view=view,
    )


def _rotvecs(six: np.ndarray) -> np.ndarray:
    """Rotation vectors [t 3] of the first two rows of rotation matrices [t 6] (Zhou et al. 2019)."""
    a, b = six[:, :3], six[:, 3:]
    x = a / np.linalg.norm(a, axis=1, keepdims=True)
    y = b - (x * b).sum(1, keepdims=True) * x
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return np.stack([cv2.Rodrigues(m)[0][:, 0] for m in np.stack((x, y, np.cross(x, y)), 1)])
