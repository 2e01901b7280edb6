"""Folders in the true layouts of other trackers against what is read of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import flame_like
import numpy as np
import pytest
import torch
from foreign_like import FOCAL, SIDE, T, adnerf, insta, vhap

from gsth import artifacts, media, registry, track
from gsth.errors import InputError
from gsth.head import flame
from gsth.track import TrackConfig, importers
from gsth.track.importers import FlameMotion, _bring
from gsth.types import Event, Notice, Track


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
        (vhap, "transforms_train.json"),
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


@pytest.mark.parametrize(
    ("make", "gone", "named"),
    [(vhap, "transforms*.json", "transforms.json"), (insta, "checkpoint", "checkpoint")],
)
def test_what_is_missing_altogether_is_named(make: object, gone: str, named: str, tmp_path: Path) -> None:
    root = make(tmp_path / "theirs")  # type: ignore[operator]
    for path in root.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=f"/{named}: is missing"):
        importers.recognised(root)


def test_pictures_of_others_are_not_taken_for_insta(tmp_path: Path) -> None:
    """A NeRF's folder has images/ too."""
    (tmp_path / "images").mkdir()
    (tmp_path / "transforms.json").write_text('{"frames": [{"file_path": "images/0.png"}]}')
    with pytest.raises(InputError, match="not of a layout that can be imported"):
        importers.recognised(tmp_path)


@pytest.mark.parametrize("features", ["aud.npy", "aud_hu.npy"])
def test_adnerf_features_of_sound_are_told_apart_from_sound(features: str, tmp_path: Path) -> None:
    root = adnerf(tmp_path / "a")
    assert not any(".npy" in n for n in importers.recognised(root).notices)
    np.save(root / features, np.zeros((T, 16, 29), np.float32))
    told = [n for n in importers.recognised(root).notices if features in n]
    assert len(told) == 1 and "aud.wav" in told[0]
    (root / "aud.wav").unlink()
    with pytest.raises(InputError, match=rf"aud\.wav: is missing.*{features}"):
        importers.recognised(root)


def test_a_split_is_taken_over_where_there_is_one(tmp_path: Path) -> None:
    root = vhap(tmp_path / "v")
    parts = [json.loads(p.read_text())["frames"] for p in sorted(root.glob("transforms_*.json"))]
    (root / "transforms.json").write_text(json.dumps({"frames": sum(parts, [])}))
    assert importers.recognised(root).train_frames == 20
    for path in root.glob("transforms_*.json"):
        path.unlink()
    assert importers.recognised(root).train_frames is None
    root = insta(tmp_path / "i")
    assert importers.recognised(root).train_frames is None
    (root / "transforms_train.json").write_text("{}")
    assert importers.recognised(root).train_frames == 24


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
