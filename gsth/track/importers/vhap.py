"""VHAP's export, which is what GaussianAvatars trains on.

``transforms.json`` (or ``transforms_train.json``, ``_val``, ``_test``) names, for each frame, ``images/*.png``,
``fg_masks/*.png``, the camera (camera to world, OpenGL axes) and ``flame_param/*.npz`` (translation, rotation,
neck_pose, jaw_pose, eyes_pose, shape, expr, static_offset).
Source: https://github.com/ShenhanQian/VHAP, vhap/export_as_nerf_dataset.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gsth.errors import InputError
from gsth.head import restricted
from gsth.track.importers import FlameMotion, Foreign, _files

FPS = 25.0
"""The export does not say; VHAP's own preprocessing and NeRSemble's processed sequences run at this rate or near it."""
WHOLE = "transforms.json"
PARTS = ("transforms_train.json", "transforms_val.json", "transforms_test.json")
FIELDS = {"translation": 3, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6}
GL = np.diag((1.0, -1.0, -1.0, 1.0))
"""OpenGL camera axes to OpenCV's."""


@dataclass(frozen=True)
class Config:
    """A folder that VHAP exported."""

    folder: Path
    """With transforms.json."""

    @classmethod
    def knows(cls, folder: Path) -> bool:
        """Whether its frames name FLAME parameters, or these are there and only transforms miss."""
        named = any("flame_param_path" in _files.peek(folder / n) for n in (WHOLE, *PARTS))
        return named or (folder / "flame_param").is_dir()

    def build(self) -> Foreign:
        """Read it. InputError names what is missing."""
        frames, train, notices = _frames(self.folder)
        pictures = tuple(_files.beside(self.folder, _files.key(f, "file_path", self.folder)) for f in frames)
        params = [_files.beside(self.folder, _files.key(f, "flame_param_path", self.folder)) for f in frames]
        _files.wanted([*pictures, *params], "VHAP writes it when it exports; export again")
        masks: tuple[Path, ...] | None = None
        if all("fg_mask_path" in f for f in frames):
            masks = tuple(_files.beside(self.folder, f["fg_mask_path"]) for f in frames)
            _files.wanted(masks, "VHAP writes masks beside images; export again")
        first = frames[0]
        K = np.eye(3)
        for name, at in {"fl_x": (0, 0), "fl_y": (1, 1), "cx": (0, 2), "cy": (1, 2)}.items():
            K[at] = _files.number(_files.key(first, name, self.folder), f"{self.folder}: {name}")
        return Foreign(
            folder=self.folder,
            pictures=pictures,
            picture=_files.picture,
            mattes=masks,
            matte=cv2_mask if masks else None,
            plate=None,
            sound=None,
            fps=FPS,
            K=K,
            train_frames=train,
            motion=_motion(params, [_view(f, self.folder) for f in frames]),
            notices=notices,
        )


def cv2_mask(path: Path) -> np.ndarray:
    """A foreground mask."""
    mask = _files.grey(path)
    return mask if mask.dtype == np.uint8 else cv2.convertScaleAbs(mask)


def _frames(folder: Path) -> tuple[list[dict[str, Any]], int | None, tuple[str, ...]]:
    """Frames of one camera in order, how many are for training (None: there is no split), and what to say."""
    split = [n for n in PARTS if (folder / n).is_file()]
    if PARTS[0] not in split and (not split or (folder / WHOLE).is_file()):
        split, parts = [], [_files.read_json(folder / WHOLE, "VHAP writes it when it exports; export again")]
    else:
        _files.wanted([folder / PARTS[0]], f"it belongs to the split, as {', '.join(split)} does; copy it again")
        parts = [_files.read_json(folder / n, "it belongs to the split") for n in split]
    tagged = [
        ({**{k: v for k, v in part.items() if k != "frames"}, **f}, k)
        for k, part in enumerate(parts)
        for f in _files.objects(_files.key(part, "frames", folder), folder)
    ]
    of = [int(_files.number(f.get("camera_index", 0), f"{folder}: camera_index")) for f, _ in tagged]
    cameras = sorted(set(of))
    chosen = max(cameras, key=Counter(of).__getitem__) if cameras else 0
    by_time: dict[int, tuple[dict[str, Any], int]] = {}
    for camera, (frame, part) in zip(of, tagged, strict=True):
        if camera == chosen:
            at = _files.number(frame.get("timestep_index", len(by_time)), f"{folder}: timestep_index")
            by_time.setdefault(int(at), (frame, part))
    frames = [by_time[t] for t in sorted(by_time)]
    if len(frames) < 2:
        raise InputError(f"{folder}: its transforms hold {len(frames)} frame(s) of one camera, wanted a sequence")
    train = max(1, next((i for i, (_, part) in enumerate(frames) if part > 0), len(frames))) if split else None
    notices = [f"{folder}: the export names no frame rate; {FPS:g}/s is taken"]
    if len(cameras) > 1:
        notices.append(f"{folder}: {len(cameras)} cameras; a Track has one, camera {chosen} is taken")
    return [f for f, _ in frames], train, tuple(notices)


def _view(frame: dict[str, Any], folder: Path) -> np.ndarray:
    c2w = _files.array(_files.key(frame, "transform_matrix", folder), (4, 4), f"{folder}: transform_matrix")
    try:
        return GL @ np.linalg.inv(c2w)
    except np.linalg.LinAlgError as error:
        raise InputError(f"{folder}: a transform_matrix has no inverse ({error}); export again") from error


def _motion(paths: list[Path], views: list[np.ndarray]) -> FlameMotion:
    rows: list[dict[str, np.ndarray]] = []
    for path in paths:
        raw = restricted.unpacked(path)
        row = {n: _files.array(_files.key(raw, n, path), (1, k), f"{path}: {n}")[0] for n, k in FIELDS.items()}
        row["expr"] = _files.array(_files.key(raw, "expr", path), (1, -1), f"{path}: expr")[0]
        row["shape"] = _files.array(np.ravel(_files.key(raw, "shape", path)), (-1,), f"{path}: shape")
        if "static_offset" in raw:
            row["offset"] = _files.array(np.squeeze(raw["static_offset"]), (-1, 3), f"{path}: static_offset")
        rows.append(row)
    stacked = {n: np.stack([r[n] for r in rows]) for n in (*FIELDS, "expr")}
    return FlameMotion(
        shape=rows[0]["shape"],
        offsets=rows[0].get("offset"),
        expr=stacked["expr"],
        neck=stacked["neck_pose"],
        jaw=stacked["jaw_pose"],
        eyes=stacked["eyes_pose"].reshape(-1, 2, 3),
        eyelids=None,
        turn=np.stack([cv2.Rodrigues(r)[0] for r in stacked["rotation"]]),
        shift=stacked["translation"],
        view=np.stack(views),
    )
