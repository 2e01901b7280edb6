"""Folders in the true layouts of other trackers, made of a known motion of a made-up FLAME."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch

from gsth import media

T, SIDE, FOCAL = 30, 192, 480.0


def values() -> dict[str, np.ndarray]:
    """Of 30 frames: a head that turns and opens its mouth."""
    t = np.arange(T)
    zero = np.zeros(T)
    return {
        "translation": np.stack((0.01 * np.sin(t / 5), zero - 0.1, zero), 1),
        "rotation": np.stack((0.05 * np.sin(t / 4), 0.3 * np.sin(t / 6), zero), 1),
        "neck_pose": np.stack((zero, 0.1 * np.cos(t / 6), zero), 1),
        "jaw_pose": np.stack((0.15 + 0.15 * np.sin(t / 2), zero, zero), 1),
        "eyes_pose": np.tile((0.05, 0.1, 0, 0.05, 0.1, 0), (T, 1)),
        "expr": np.zeros((T, 100)),
        "shape": np.concatenate(((0.5, -0.3), np.zeros(298))),
    }


def pictures(folder: Path, names: list[str], alpha: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in names:
        image = rng.integers(0, 255, (SIDE, SIDE, 4 if alpha else 3), np.uint8)
        cv2.imwrite(str(folder / name), image)


def vhap(root: Path, cameras: int = 1, data: dict[str, np.ndarray] | None = None, **camera: object) -> Path:
    """As export_as_nerf_dataset.py writes it, split as GaussianAvatars wants it; ``data`` instead of ``values()``."""
    data, frames = data or values(), []
    c2w = np.eye(4)
    c2w[:3, 3] = (0, 1.4, 0.9)  # OpenGL axes: looks along -z, to the face
    (root / "flame_param").mkdir(parents=True)
    for t in range(T):
        row = {n: data[n][[t]] for n in data if n != "shape"} | {"shape": data["shape"]}
        np.savez(root / f"flame_param/{t:05d}.npz", **row, static_offset=np.zeros((1, 9000, 3), np.float32))
        for c in range(cameras):
            name = f"{t:05d}_{c:02d}.png"
            frames.append(
                {
                    "timestep_index": t, "camera_index": c, "cx": SIDE / 2, "cy": SIDE / 2, "fl_x": FOCAL,
                    "fl_y": FOCAL, "h": SIDE, "w": SIDE, "transform_matrix": c2w.tolist(),
                    "file_path": f"images/{name}", "fg_mask_path": f"fg_masks/{name}",
                    "flame_param_path": f"flame_param/{t:05d}.npz",
                }
                | camera
            )  # fmt: skip
    names = [Path(f["file_path"]).name for f in frames]
    pictures(root / "images", names)
    pictures(root / "fg_masks", names)
    for part, chosen in {"train": range(0, 20), "val": range(20, 25), "test": range(25, T)}.items():
        of_part = [f for f in frames if f["timestep_index"] in chosen]
        (root / f"transforms_{part}.json").write_text(json.dumps({"frames": of_part}))
    return root


def six(rotvec: np.ndarray) -> np.ndarray:
    return cv2.Rodrigues(rotvec)[0][:2].reshape(-1)


def insta(root: Path, alpha: bool = True) -> Path:
    """As metrical-tracker's save_checkpoint writes it."""
    data = values()
    (root / "checkpoint").mkdir(parents=True)
    for t in range(T):
        R = np.diag((1.0, -1.0, -1.0)) @ cv2.Rodrigues(data["rotation"][t])[0]
        eyes = data["eyes_pose"][t].reshape(2, 3)
        frame = {
            "flame": {
                "exp": np.zeros((1, 100), np.float32), "shape": data["shape"][None].astype(np.float32),
                "tex": np.zeros((1, 150), np.float32), "sh": np.zeros((1, 9, 3), np.float32),
                "eyes": np.concatenate([six(e) for e in eyes])[None].astype(np.float32),
                "eyelids": np.array([[0.2, 0.9]], np.float32), "jaw": six(data["jaw_pose"][t])[None].astype(np.float32),
            },
            "camera": {"R": np.zeros((1, 6), np.float32), "t": np.zeros((1, 3), np.float32)},
            "opencv": {
                "R": R[None].astype(np.float32), "t": np.array([[0, 1.5, 0.9]], np.float32),
                "K": np.array([[[FOCAL, 0, SIDE / 2], [0, FOCAL, SIDE / 2], [0, 0, 1]]], np.float32),
            },
            "img_size": np.array((SIDE, SIDE)), "frame_id": f"{t:05d}", "global_step": 7,
        }  # fmt: skip
        torch.save(frame, root / f"checkpoint/{t:05d}.frame")
    pictures(root / "images", [f"{t:05d}.png" for t in range(T)], alpha)
    return root


def adnerf(root: Path) -> Path:
    """As process_data.py leaves it."""
    pictures(root / "ori_imgs", [f"{i}.jpg" for i in range(T)])
    pictures(root / "parsing", [f"{i}.png" for i in range(T)])
    pictures(root, ["bc.jpg"])
    media.write_sound(root / "aud.wav", np.zeros(int(T / 25 * 16000), np.float32), 16000)
    for part, ids in {"train": range(0, 27), "val": range(27, T)}.items():
        frames = [
            {"img_id": i, "aud_id": i, "transform_matrix": np.eye(4).tolist(), "face_rect": [0, 0, 9, 9]} for i in ids
        ]
        content = {"focal_len": 1100.0, "cx": SIDE / 2, "cy": SIDE / 2, "frames": frames}
        (root / f"transforms_{part}.json").write_text(json.dumps(content))
    return root
