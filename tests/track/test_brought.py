"""Whole tracks on FLAME, and of other trackers' folders: what the options do there, and where the head stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import flame_like
import numpy as np
import pytest
import torch
from foreign_like import FOCAL, SIDE, T, adnerf, insta, vhap

from gsth import artifacts, math3d, media, track
from gsth.errors import InputError
from gsth.head import HeadModel, flame
from gsth.track import TrackConfig, _landmarks, _mattes, _track, importers
from gsth.track.detectors import Face
from gsth.track.importers import Foreign, _bring
from gsth.types import Clip, Event, Notice, Track

BLURRED = (10, 11, 12)
CX, CY, FL_Y = 90.0, 101.0, 470.0
"""Of a camera whose middle is not the picture's, and whose pixels are not quite square."""


@pytest.fixture(scope="module")
def flame_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A made-up FLAME, kept in a cache of its own."""
    pytest.importorskip("mediapipe")
    root = tmp_path_factory.mktemp("flame")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(root / "cache"))
        yield flame_like.write_npz(root / "flame.npz")


def projected(model: HeadModel, foreign: Foreign) -> np.ndarray:
    """Where the folder's own motion and camera put the landmarks, px [t 478 2]."""
    assert foreign.motion is not None
    identity = _bring.identity_of(model, foreign.motion)
    verts = model.shaped(identity).posed(_bring.motion_of(model, foreign.motion, identity, foreign.fps)).verts
    points = model.landmarks(verts).double().numpy() @ foreign.K.T
    return (points[..., :2] / points[..., 2:]).astype(np.float32)


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch, flame_file: Path) -> object:
    """Makes the detector see what a folder says, whatever its pictures show."""

    def install(root: Path) -> Path:
        points = projected(flame.Config(path=flame_file).build(), importers.recognised(root))

        class Sees:
            def __init__(self) -> None:
                self.frame = -1

            def follow(self, picture: np.ndarray) -> list[Face]:
                self.frame += 1
                return [Face(points[self.frame])]

            def body(self, picture: np.ndarray) -> None:
                return None

            def close(self) -> None:
                pass

        monkeypatch.setattr(_track, "_detector", lambda config: Sees)
        return root

    return install


def wall(root: Path) -> Path:
    """Its pictures: one rough wall, out of focus in some frames."""
    rough = np.random.default_rng(0).integers(100, 150, (SIDE, SIDE, 3), np.uint8)
    for i, path in enumerate(sorted((root / "images").iterdir())):
        cv2.imwrite(str(path), cv2.GaussianBlur(rough, (0, 0), 4) if i in BLURRED else rough)
    return root


def config(flame_file: Path, **more: object) -> TrackConfig:
    return TrackConfig(size=96, head="flame", flame_path=flame_file, report=False, **more)  # type: ignore[arg-type]


def run(root: Path, out: Path, config: TrackConfig) -> tuple[Track, list[str]]:
    """The track, and what was said."""
    events: list[Event] = list(track.run(root, out, config))
    return artifacts.load(Track, out), [e.text for e in events if isinstance(e, Notice)]


def off_centre(root: Path) -> Path:
    return vhap(root, cx=CX, cy=CY, fl_y=FL_Y)


def test_a_brought_head_is_drawn_where_the_folder_has_it(flame_file: Path, sees: object, tmp_path: Path) -> None:
    root = sees(wall(off_centre(tmp_path / "v")))  # type: ignore[operator]
    made, said = run(root, tmp_path / "v.track", config(flame_file))
    assert made.found.all() and made.error_pct.max() < 0.1
    k, box = made.cameras.Ks[0], made.crop_px
    scale = 96 / (box[2] - box[0])
    wanted = torch.tensor((FOCAL, FL_Y, CX - box[0], CY - box[1])) * scale
    assert torch.allclose(torch.stack((*k.diagonal()[:2], k[0, 2], k[1, 2])), wanted, rtol=1e-5)
    assert any(f"{root}: the face is small" in text for text in said)
    assert not any(".part" in text or "clip.mp4" in text for text in said), "the user knows of no such file"
    assert artifacts.read_meta(tmp_path / "v.track", "track")["config"]["holdout"] == pytest.approx(1 / 3)
    assert any("its own split stays: the first 20 of 30" in text for text in said)


def test_bad_frames_of_a_folder_are_dropped_when_asked(flame_file: Path, sees: object, tmp_path: Path) -> None:
    root = sees(wall(vhap(tmp_path / "v")))  # type: ignore[operator]
    whole, before = run(root, tmp_path / "whole.track", config(flame_file))
    made, said = run(root, tmp_path / "v.track", config(flame_file, drop_bad_frames=True))
    assert "3 frames are bad (blurred, among others): --drop-bad-frames keeps" in before[-1]
    assert "--drop-bad-frames" not in said[-1], "which was given"
    assert whole.found.all() and np.flatnonzero(~made.found.numpy()).tolist() == list(BLURRED)
    middle = (made.motion.expr[BLURRED[0] - 1] + made.motion.expr[BLURRED[-1] + 1]) / 2
    assert torch.allclose(made.motion.expr[BLURRED[1]], middle, atol=1e-5), "bridged"
    assert torch.equal(made.motion.expr[:10], whole.motion.expr[:10])


@pytest.mark.parametrize("make", [vhap, lambda root: insta(root, alpha=False)], ids=["vhap", "insta"])
def test_without_mattes_no_models_are_wanted_and_all_is_person(
    make: object, flame_file: Path, sees: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = sees(wall(make(tmp_path / "theirs")))  # type: ignore[operator]

    def absent() -> None:
        raise InputError("mediapipe 1.0.0 ships no models")

    monkeypatch.setattr(_mattes, "solutions", absent)
    made, said = run(root, tmp_path / "a.track", config(flame_file, matte=False))
    assert (made.mattes == 255).all() and made.plate is None and not any("background" in text for text in said)
    if make is not vhap:  # which brings masks
        with pytest.raises(InputError, match="ships no models"):
            run(root, tmp_path / "b.track", config(flame_file))


def test_a_moving_background_is_told_of_the_folder(
    flame_file: Path, sees: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = sees(wall(vhap(tmp_path / "v")))  # type: ignore[operator]
    monkeypatch.setattr(_mattes, "plate", lambda images, mattes, frames: (np.zeros((96, 96, 3), np.float32), 9.0))
    made, said = run(root, tmp_path / "v.track", config(flame_file))
    assert made.plate is None and any(f"{root}: the background is not still" in text for text in said)


def test_a_brought_camera_stands_against_the_focal_length(flame_file: Path, tmp_path: Path) -> None:
    root = vhap(tmp_path / "v")
    with pytest.raises(InputError, match=r"v: its motion is seen through its own camera \(480 px\); --focal-px 700"):
        list(track.run(root, tmp_path / "v.track", config(flame_file, focal_px=700.0)))
    assert not (tmp_path / "v.track").exists()


def test_a_head_fitted_anew_takes_the_focal_length(clip: Clip, seen: _landmarks.Detections, tmp_path: Path) -> None:
    foreign = importers.recognised(adnerf(tmp_path / "a"))
    crop = _track._crop.choose(seen.points, clip.width, clip.height, 96)
    model = _track.head_model(TrackConfig())
    for asked, focal in ((TrackConfig(), 1100), (TrackConfig(focal_px=700.0), 700)):
        given = _bring._observed(foreign, clip, crop, asked, seen, model)
        assert given.focal == pytest.approx(focal * crop.scale) and given.focal_known == (focal == 700)
        assert any("--focal-px (700)" in text for text in _bring._kept(foreign, asked)) == (focal == 700)


def test_holdout_splits_what_brings_no_split(tmp_path: Path) -> None:
    foreign = importers.recognised(insta(tmp_path / "i"))
    half = TrackConfig(holdout=0.5)
    assert _bring._train_frames(foreign, half) == 15 and not list(_bring._kept(foreign, half))
    assert _bring._train_frames(replace(foreign, train_frames=24), half) == 24


def coefficients(model: HeadModel, made: Track) -> dict[str, np.ndarray]:
    """A track's motion as FLAME's own, before a camera that looks along FLAME's -z."""
    own, motion = flame.own_space(model), made.motion
    codes = own.flame(motion.expr.double().numpy())
    joints = motion.joints.double()
    shape = made.identity.shape.double().numpy()
    turn = math3d.quat_to_mat(math3d.quat_mul(motion.T_world_head[:, :4].double(), joints[:, 0])).numpy()
    turn = np.diag(flame.AXES) @ turn @ np.diag(flame.AXES)
    root = own.root + own.root_basis.T @ shape
    place = motion.T_world_head[:, 4:].double().numpy() * flame.AXES
    neck = math3d.quat_to_rotvec(math3d.quat_mul(joints[:, 1], joints[:, 2])).numpy() * flame.AXES
    eyes = math3d.quat_to_rotvec(joints[:, 3:]).numpy() * flame.AXES
    return {
        "translation": place - root - turn @ (own.origin - root),
        "rotation": np.stack([cv2.Rodrigues(m)[0][:, 0] for m in turn]),
        "neck_pose": neck,
        "jaw_pose": codes[:, 100:],
        "eyes_pose": eyes.reshape(-1, 6),
        "expr": codes[:, :100],
        "shape": np.concatenate((shape, np.zeros(300 - len(shape)))),
    }


def posed(model: HeadModel, made: Track) -> torch.Tensor:
    return model.shaped(made.identity).posed(made.motion).verts


@pytest.fixture(scope="module")
def filmed(clips: Path, flame_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[np.ndarray], Path]:
    """The first pictures of a real clip, small, and their track on the made-up FLAME."""
    root = tmp_path_factory.mktemp("filmed")
    whole = media.frames(media.probe(clips / "hill.mp4"), 0, T)
    pictures = [cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for frame in whole]
    media.write_video(root / "short.mp4", pictures, 25)
    _, said = run(root / "short.mp4", root / "film.track", config(flame_file))
    assert any("Max Planck" in text for text in said)
    return pictures, root / "film.track"


@pytest.mark.real
@pytest.mark.slow
def test_a_film_is_tracked_on_flame(filmed: tuple[list[np.ndarray], Path]) -> None:
    made = artifacts.load(Track, filmed[1])
    model = flame.Config.of(made.identity.head).build()
    assert made.identity.head.name == "flame" and made.found.all() and made.error_pct.median() < 1.5
    verts = posed(model, made)
    assert all(x.isfinite().all() for x in (made.motion.expr, made.identity.shape, made.error_pct, verts))
    assert (verts[..., 2] > 0.2).all() and (verts[..., 2] < 5).all()
    assert made.motion.expr.min() >= 0 and made.motion.expr.max() <= 1
    assert artifacts.read_meta(filmed[1], "track")["quality"]["held_out_error_pct"] < 2


@pytest.mark.real
@pytest.mark.slow
def test_a_real_face_comes_back_from_vhap(
    filmed: tuple[list[np.ndarray], Path], flame_file: Path, tmp_path: Path
) -> None:
    """A film's own track, written as VHAP would have it: the head stands where it stood."""
    pictures, made = filmed[0], artifacts.load(Track, filmed[1])
    model = flame.Config.of(made.identity.head).build()
    focal = float(made.cameras.Ks[0, 0, 0]) * (made.crop_px[2] - made.crop_px[0]) / made.cameras.width
    camera = {"fl_x": focal, "fl_y": focal, "transform_matrix": np.eye(4).tolist()}
    root = vhap(tmp_path / "v", data=coefficients(model, made), **camera)
    for path, picture in zip(sorted((root / "images").iterdir()), pictures, strict=True):
        cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(root / "fg_masks" / path.name), np.full((SIDE, SIDE), 255, np.uint8))
    back, _ = run(root, tmp_path / "back.track", config(flame_file))
    away = (posed(model, back) - posed(model, made)).norm(dim=-1)
    assert away.mean() < 1e-3 and away.max() < 5e-3, "m"
    assert back.found.all() and back.error_pct.median() < 3, "the fit's own offsets do not come along"
    assert (back.mattes[:, 48, 48] == 255).all()
