"""Whole files, one of each kind that gsth reads, for benchmarks/fuzz.py to break. Each maker writes into a folder and
gives the path of the file that will be broken."""

from __future__ import annotations

import json
import pickle
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gsth import artifacts, head, media, provenance
from gsth.avatar import Avatar, Source
from gsth.drive import _curves
from gsth.export import _bin, gaussianavatars, web
from gsth.serve import protocol
from gsth.types import Cameras, Identity, Motion, RiggedSplats

MESSAGES = "\n".join(
    json.dumps(message)
    for message in (
        {"do": "hello", "visitor": 1, "state": "e30", "dark": False},
        {"do": "key", "name": "play"},
        {"do": "file", "name": "a.wav", "size": 5000, "purpose": "sound"},
        {"do": "listen", "rate": 16000},
        {"do": "hush"},
        {"do": "player", "on": True},
    )
)
STATE = protocol.pack_state({"yaw": 0.3, "sliders": {"jawOpen": 0.5}, "names": ["a", "b"]})
SETTINGS = "steps: 300\nrates: {means: 0.01, sh: 0.02}\nname: quick\n"
SCRIPT = "speakers:\n  ada: {avatar: a.avatar}\nlines:\n  - ada: Hello.\n  - {ada: Good bye., pause_s: 1.5}\n"
WEIGHTS = json.dumps({"fps": 25, "names": ["jawOpen", "eyeBlinkLeft"], "frames": [[0.1, 0.2], [0.3, 0.4]]})


def person(frames: int = 4, splats: int = 40) -> Avatar:
    """An avatar on the built-in head that nobody trained."""
    model = head.load("builtin")
    generator = torch.Generator().manual_seed(0)
    e, n = len(model.expression_names), splats
    place = torch.tensor((1.0, 0, 0, 0, 0, 0, 0.6)).expand(frames, 7)
    joints = torch.tensor((1.0, 0, 0, 0)).expand(frames, 5, 4)
    moved = Motion(model.id, 25.0, torch.rand(frames, e, generator=generator) * 0.3, joints, place)
    K = torch.tensor([[300.0, 0, 32], [0, 300, 32], [0, 0, 1]])
    quats = torch.tensor((1.0, 0, 0, 0)).expand(n, 4)
    ids = torch.randint(0, len(model.faces), (n,), generator=generator)
    scales = torch.full((n, 3), -2.0)
    look = RiggedSplats(ids, torch.zeros(n, 3), quats, scales, torch.ones(n), torch.zeros(n, 1, 3))
    seen = torch.ones(frames, dtype=torch.bool), torch.zeros(frames)
    source = Source(Path("a.mp4"), "00", 25.0, (0, 0, 64, 64), 3, torch.arange(frames), *seen)
    who = Identity(model.id, torch.zeros(len(model.shape_basis)))
    meta = provenance.record({}, provenance.SYNTHETIC, "00")
    return Avatar(model, who, look, Cameras(torch.eye(4)[None], K[None], 64, 64), moved, source, meta=meta)


def avatar_part(name: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        made.save(folder / "a.avatar")
        _unsealed(folder / "a.avatar")
        return folder / "a.avatar" / name

    return make


def motion_part(name: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        artifacts.save(made.motion, folder / "m")
        _unsealed(folder / "m")
        return folder / "m" / name

    return make


def _unsealed(folder: Path) -> None:
    """Without hashes, which would stop every change at the door: what an attacker writes has right ones."""
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"files": {}}))


def exported(exporter: Any, name: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        list(exporter.build().write(made, folder / name))
        return folder / name

    return make


def text(name: str, text: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def csv(folder: Path, made: Avatar) -> Path:
    names = tuple(made.head.expression_names)
    _curves.write(folder / "a.csv", _curves.Curves(25.0, names, made.motion.expr))
    return folder / "a.csv"


def npz(folder: Path, made: Avatar) -> Path:
    names = np.array(made.head.expression_names)
    np.savez(folder / "a.npz", expr=made.motion.expr.numpy(), names=names, fps=np.float64(25))
    return folder / "a.npz"


def video(folder: Path, made: Avatar) -> Path:
    pictures = [np.full((64, 64, 3), 20 * i, np.uint8) for i in range(6)]
    tone = np.sin(np.arange(4000) / 8).astype(np.float32)
    media.write_video(folder / "a.mp4", pictures, 25, tone, 16000)
    return folder / "a.mp4"


def sound(folder: Path, made: Avatar) -> Path:
    with wave.open(str(folder / "a.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(bytes(4000))
    return folder / "a.wav"


def picture(folder: Path, made: Avatar) -> Path:
    picture = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    provenance.write_image(folder / "a.png", picture, provenance.about([made.meta]), provenance.STAMPED)
    return folder / "a.png"


def page(folder: Path, made: Avatar) -> Path:
    list(web.Config(single_file=True).build().write(made, folder / "a.html"))
    return folder / "a.html"


def bin_file(folder: Path, made: Avatar) -> Path:
    (folder / "a.bin").write_bytes(_bin.pack(made, made.motion))
    return folder / "a.bin"


def _flame() -> dict[str, np.ndarray]:
    """FLAME's layout on twelve vertices, which is all that its reader looks at."""
    rng = np.random.default_rng(0)
    shapes = {"v_template": (12, 3), "shapedirs": (12, 3, 400), "J_regressor": (5, 12), "weights": (12, 5)}
    made: dict[str, np.ndarray] = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return {"f": np.arange(12).reshape(4, 3).astype(np.uint32), **made}


class _Ch:
    """A chumpy object or a scipy matrix as pickles hold them: a class and its state."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)


def flame_pickle(folder: Path, made: Avatar) -> Path:
    """As FLAME 2020 comes: protocol 2, shapedirs a chumpy object, the regressor a sparse matrix by columns."""
    data: dict[str, Any] = _flame()
    data["shapedirs"] = _Ch(x=data["shapedirs"])
    columns, rows = np.nonzero(data["J_regressor"].T)
    indptr = np.arange(13, dtype=np.int32) * 5
    held = _Ch(_shape=(5, 12), data=data["J_regressor"][rows, columns], indices=rows.astype(np.int32), indptr=indptr)
    data["J_regressor"] = held
    named = pickle.dumps(data, protocol=2).replace(f"c{__name__}\n_Ch\n".encode(), b"cchumpy.ch\nCh\n")
    (folder / "flame.pkl").write_bytes(named)
    return folder / "flame.pkl"


def flame_npz(folder: Path, made: Avatar) -> Path:
    np.savez(folder / "flame.npz", **_flame())
    return folder / "flame.npz"


def flame_param(folder: Path, made: Avatar) -> Path:
    """As GaussianAvatars leaves it, on twelve vertices and teeth."""
    rows = {name: np.zeros((2, size if size > 0 else 100)) for name, size in gaussianavatars.PER_FRAME.items()}
    offsets = {"static_offset": np.zeros((1, 132, 3)), "dynamic_offset": np.zeros((2, 132, 3))}
    np.savez(folder / "flame_param.npz", shape=np.zeros(300), **offsets, **rows)
    return folder / "flame_param.npz"


def _pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((8, 8, 3), np.uint8))


def vhap(name: str) -> Callable[[Path, Avatar], Path]:
    def make(folder: Path, made: Avatar) -> Path:
        sizes = {"translation": 3, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "expr": 100}
        camera = {"cx": 4, "cy": 4, "fl_x": 20, "fl_y": 20, "h": 8, "w": 8, "transform_matrix": np.eye(4).tolist()}
        frames, rows = [], {n: np.full((1, k), 0.1) for n, k in sizes.items()} | {"shape": np.zeros(300)}
        for i in range(3):
            frame: dict[str, Any] = {"timestep_index": i, "camera_index": 0, "flame_param_path": f"{i}.npz", **camera}
            frames.append(frame | {"file_path": f"images/{i}.png", "fg_mask_path": f"fg_masks/{i}.png"})
            _pictures(folder, f"images/{i}.png", f"fg_masks/{i}.png")
            np.savez(folder / f"{i}.npz", **rows, static_offset=np.zeros((1, 12, 3)))
        (folder / "transforms.json").write_text(json.dumps({"frames": frames}))
        return folder / name

    return make


def insta(folder: Path, made: Avatar) -> Path:
    flame = {n: np.full((1, k), 0.1, np.float32) for n, k in {"exp": 100, "shape": 300, "eyelids": 2}.items()}
    turns = {n: np.tile(np.eye(3, dtype=np.float32)[:2].reshape(-1), k)[None] for n, k in {"eyes": 2, "jaw": 1}.items()}
    K = np.array([[[20, 0, 4], [0, 20, 4], [0, 0, 1]]], np.float32)
    camera = {"R": np.eye(3, dtype=np.float32)[None], "t": np.zeros((1, 3), np.float32), "K": K}
    (folder / "checkpoint").mkdir()
    for i in range(2):
        torch.save({"flame": flame | turns, "opencv": camera}, folder / f"checkpoint/{i:05d}.frame")
        _pictures(folder, f"input/{i:05d}.png")
    return folder / "checkpoint/00000.frame"


def adnerf(folder: Path, made: Avatar) -> Path:
    for i in range(3):
        _pictures(folder, f"ori_imgs/{i}.jpg", f"parsing/{i}.png", "bc.jpg")
    sound(folder, made).rename(folder / "aud.wav")
    for part, ids in {"train": (0, 1), "val": (2,)}.items():
        content = {"focal_len": 1100.0, "cx": 4.0, "cy": 4.0, "frames": [{"img_id": i} for i in ids]}
        (folder / f"transforms_{part}.json").write_text(json.dumps(content))
    return folder / "transforms_train.json"
