"""Folders in the true layouts of other trackers, made of a known motion of a made-up FLAME, against what comes out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import flame_like
import numpy as np
import pytest
import torch

from gsth import artifacts, media, registry, track
from gsth.errors import InputError
from gsth.head import flame
from gsth.track import TrackConfig, importers
from gsth.track.importers import FlameMotion, _bring
from gsth.types import Event, Notice, Track

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


def vhap(root: Path, cameras: int = 1) -> Path:
    """As export_as_nerf_dataset.py writes it, split as GaussianAvatars wants it."""
    data, frames = values(), []
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


def insta(root: Path) -> Path:
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
    pictures(root / "images", [f"{t:05d}.png" for t in range(T)], alpha=True)
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


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> object:
    pytest.importorskip("mediapipe")
    root = tmp_path_factory.mktemp("flame")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        yield flame.Config(path=flame_like.write_npz(root / "flame.npz")).build()


def posed_by_flame(theirs: FlameMotion, frame: int) -> np.ndarray:
    """Vertices in camera axes, by FLAME's formula written out: no jaw, expression or eyes."""
    raw = flame_like.arrays()
    shape = np.zeros(400)
    shape[: len(theirs.shape)] = theirs.shape
    verts = raw["v_template"] + raw["shapedirs"] @ shape
    joints = raw["J_regressor"] @ verts
    neck = cv2.Rodrigues(theirs.neck[frame])[0]
    skull = raw["weights"][:, 1:].sum(1, keepdims=True)
    verts = (1 - skull) * verts + skull * ((verts - joints[1]) @ neck.T + joints[1])
    world = (verts - joints[0]) @ theirs.turn[frame].T + joints[0] + theirs.shift[frame]
    return world @ theirs.view[frame, :3, :3].T + theirs.view[frame, :3, 3]


@pytest.mark.parametrize("make", [vhap, insta])
def test_the_head_stands_where_their_coefficients_put_it(model: object, make: object, tmp_path: Path) -> None:
    foreign = importers.recognised(make(tmp_path / "theirs"))  # type: ignore[operator]
    theirs = foreign.motion
    assert theirs is not None and len(foreign.pictures) == T
    identity = _bring.identity_of(model, theirs)  # type: ignore[arg-type]
    motion = _bring.motion_of(model, theirs, identity, 25.0)  # type: ignore[arg-type]
    verts = model.shaped(identity).posed(motion.replace(expr=motion.expr * 0)).verts.numpy()  # type: ignore[attr-defined]
    ball = flame_like.arrays()["weights"][:, 3:].sum(1) > 0.01  # eyes turn on their own
    for frame in (0, 7, 29):
        wanted = posed_by_flame(theirs, frame)
        assert np.abs(verts[frame] - wanted)[~ball].max() < 1e-4
    open_mouth = motion.expr[:, model.expression_names.index("jawOpen")].numpy()  # type: ignore[attr-defined]
    assert np.corrcoef(open_mouth, theirs.jaw[:, 0])[0, 1] > 0.95
    assert motion.expr.isfinite().all()


def test_vhap_split_cameras_and_masks(tmp_path: Path) -> None:
    foreign = importers.recognised(vhap(tmp_path / "v", cameras=2))
    assert foreign.train_frames == 20 and foreign.mattes is not None and len(foreign.mattes) == T
    assert any("2 cameras" in n for n in foreign.notices) and {p.name[6:8] for p in foreign.pictures} == {"00"}
    assert foreign.K[0, 0] == FOCAL


def test_insta_eyelids_and_alpha(model: object, tmp_path: Path) -> None:
    foreign = importers.recognised(insta(tmp_path / "i"))
    assert foreign.mattes == foreign.pictures and foreign.motion is not None
    identity = _bring.identity_of(model, foreign.motion)  # type: ignore[arg-type]
    motion = _bring.motion_of(model, foreign.motion, identity, 25.0)  # type: ignore[arg-type]
    right = motion.expr[:, model.expression_names.index("eyeBlinkRight")]  # type: ignore[attr-defined]
    assert (right >= 0.89).all()


def test_adnerf_takes_mattes_background_sound_focal_and_split(tmp_path: Path) -> None:
    foreign = importers.recognised(adnerf(tmp_path / "a"))
    assert foreign.motion is None and foreign.train_frames == 27 and foreign.K[0, 0] == 1100
    assert foreign.sound is not None and foreign.plate is not None
    parsing = np.full((4, 4, 3), 255, np.uint8)
    parsing[0, 0], parsing[1, 1] = (0, 0, 255), (255, 0, 0)
    cv2.imwrite(str(tmp_path / "p.png"), parsing)
    assert foreign.matte is not None and (foreign.matte(tmp_path / "p.png") > 0).sum() == 2


@pytest.mark.parametrize(
    ("make", "gone"),
    [
        (vhap, "flame_param/00004.npz"),
        (vhap, "images/00003_00.png"),
        (vhap, "fg_masks/00003_00.png"),
        (insta, "images/00005.png"),
        (adnerf, "parsing/7.png"),
        (adnerf, "ori_imgs/7.jpg"),
        (adnerf, "aud.wav"),
        (adnerf, "bc.jpg"),
        (adnerf, "transforms_val.json"),
        (adnerf, "transforms_train.json"),
    ],
)
def test_what_is_missing_is_named(make: object, gone: str, tmp_path: Path) -> None:
    root = make(tmp_path / "theirs")  # type: ignore[operator]
    (root / gone).unlink()
    with pytest.raises(InputError, match=f"{gone}: is missing"):
        importers.recognised(root)


def test_checkpoints_are_missed_by_name_and_never_run(tmp_path: Path) -> None:
    root = insta(tmp_path / "i")
    for path in (root / "checkpoint").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"checkpoint: holds 0 \.frame files"):
        importers.recognised(root)
    torch.save({"flame": Path("x")}, root / "checkpoint/00000.frame")
    torch.save({"flame": Path("x")}, root / "checkpoint/00001.frame")
    with pytest.raises(InputError, match="is no array: refused"):
        importers.recognised(root)


def test_other_folders_are_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="adnerf, insta, vhap"):
        importers.recognised(tmp_path)
    assert registry.names("track.importers") == ("adnerf", "insta", "vhap")


def test_flame_coefficients_without_flame_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--head flame --flame-path FILE"):
        list(track.run(vhap(tmp_path / "v"), tmp_path / "out.track"))
    assert not (tmp_path / "out.track").exists()


@pytest.mark.real
def test_adnerf_folder_of_a_real_face_becomes_a_track(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    root = adnerf(tmp_path / "a")
    clip = media.probe(clips / "hill.mp4")
    for i, frame in enumerate(media.frames(clip, 0, T)):
        small = cv2.cvtColor(cv2.resize(frame, (SIDE, SIDE)), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(root / f"ori_imgs/{i}.jpg"), small)
    out = tmp_path / "a.track"
    events: list[Event] = list(track.run(root, out, TrackConfig(size=96, photometric=False)))
    made = artifacts.load(Track, out)
    assert made.clip.path == out / "clip.mp4" and made.clip.wav is not None and len(made.found) == T
    assert made.plate is not None and made.error_pct.median() < 2
    assert any(isinstance(e, Notice) and "Basel" in e.text for e in events)
    assert not list(tmp_path.glob(".*"))
