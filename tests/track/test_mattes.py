"""Mattes and the background plate."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gsth import media
from gsth.errors import MissingExtraError
from gsth.track import TrackConfig, _crop, _mattes, _track


def walking_disc(size: int = 64, frames: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright disc that moves from left to right before a known background: pictures, mattes, background."""
    rng = np.random.default_rng(0)
    background = cv2.GaussianBlur(rng.uniform(0, 255, (size, size, 1)), (0, 0), 3)
    background = cv2.normalize(background, None, 0, 240, cv2.NORM_MINMAX).astype(np.uint8)[..., None].repeat(3, 2)
    images, mattes = [], []
    for i in range(frames):
        matte = np.zeros((size, size), np.uint8)
        cv2.circle(matte, (8 + i * (size - 16) // frames, size // 2), 8, 255, -1)
        image = np.where(matte[..., None] > 0, 255, background)
        images.append(np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8))
        mattes.append(matte)
    return np.stack(images), np.stack(mattes), background


def test_plate_recovers_what_the_person_hid_for_a_while() -> None:
    images, mattes, background = walking_disc()
    plate, shift = _mattes.plate(images, mattes, len(images))
    assert plate.shape == background.shape and plate.dtype == np.float32
    assert np.abs(plate * 255 - background).mean() < 1.5
    assert np.abs(plate * 255 - background).max() < 8
    assert shift < 0.5 * _mattes.STILL_PX


def test_plate_learns_nothing_from_held_out_frames() -> None:
    images, mattes, _ = walking_disc()
    before, _ = _mattes.plate(images, mattes, 30)
    images[30:], mattes[30:] = 0, 0
    after, _ = _mattes.plate(images, mattes, 30)
    assert (before == after).all()


def test_a_moving_camera_shows() -> None:
    images, mattes, _ = walking_disc()
    for i in range(len(images)):
        images[i] = np.roll(images[i], i, axis=0)
    assert _mattes.plate(images, mattes, len(images))[1] > 1.5 * _mattes.STILL_PX


def test_hole_is_filled_smoothly_from_around() -> None:
    ramp = np.repeat(np.linspace(50, 200, 64, dtype=np.float32)[None, :, None], 64, 0).repeat(3, 2)
    known = np.ones((64, 64), bool)
    known[20:44, 20:44] = False
    filled = _mattes.filled(np.where(known[..., None], ramp, 0), known)
    assert (filled[known] == ramp[known]).all()
    assert np.abs(filled - ramp).max() < 30
    assert filled[20:44, 20:44].min() >= 50


def test_guided_filter_pulls_a_blurred_matte_to_the_edge() -> None:
    guide = np.zeros((64, 64, 3), np.uint8)
    guide[:, 32:] = (204, 128, 51)
    sharp = (guide[..., 0] > 0).astype(np.float32)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 3)
    refined = _mattes.guided_filter(guide, blurred, 8, 1e-4)
    assert (refined[:, 32] - refined[:, 31]).min() > 4 * (blurred[:, 32] - blurred[:, 31]).max()
    assert np.abs(refined[:, 30] - sharp[:, 30]).max() < 0.6 * np.abs(blurred[:, 30] - sharp[:, 30]).max()


def test_opencv_without_its_extra_modules_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(MissingExtraError, match="opencv-contrib-python"):
        _mattes.guided_filter(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.float32), 2, 1e-4)


def test_without_mattes_their_models_are_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_mattes, "Matter", None)
    media.write_video(tmp_path / "a.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3, 25)
    crop, config = _crop.Crop(0, 0, 64, 64), TrackConfig(size=64, matte=False)
    work = _track.pictures(media.probe(tmp_path / "a.mp4"), crop, config, tmp_path)
    with pytest.raises(StopIteration) as end:
        while True:
            next(work)
    images, mattes = end.value.value
    assert (mattes == 255).all() and (np.abs(images.astype(int) - 90) < 3).all()


def test_every_frame_gets_one_matte_in_order() -> None:
    pytest.importorskip("mediapipe")
    rng = np.random.default_rng(0)
    for count in (1, 2, 5):
        ready = []
        with _mattes.Matter(64) as matter:
            for _ in range(count):
                ready += matter.push(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
            ready += matter.flush()
        assert len(ready) == count
        assert all(m.shape == (64, 64) and m.dtype == np.uint8 for m in ready)


@pytest.mark.real
def test_matte_of_a_real_person(clips: Path) -> None:
    pytest.importorskip("mediapipe")
    clip = media.probe(clips / "hill.mp4")
    ready: list[np.ndarray] = []
    with _mattes.Matter(512) as matter:
        for frame in media.frames(clip, 0, 4):
            ready += matter.push(frame)
        ready += matter.flush()
    for matte in ready:
        assert matte[260, 256] == 255, "the nose is person"
        assert matte[:60, :20].max() < 30 and matte[:60, -20:].max() < 30, "the upper corners are wall"
        assert 0.35 < (matte > 127).mean() < 0.75


def holes(matte: np.ndarray) -> float:
    """Share of the person through which the wall shows: what cannot be reached from the top or the sides."""
    wall = cv2.copyMakeBorder((matte < 128).astype(np.uint8), 1, 0, 1, 1, cv2.BORDER_CONSTANT, value=1)
    parts = cv2.connectedComponents(wall, connectivity=4)[1]
    return float(((wall == 1) & (parts != parts[0, 0])).sum() / (matte >= 128).sum())


@pytest.mark.real
def test_mattes_of_a_real_person_neither_flicker_nor_have_holes(clips: Path) -> None:
    """Measured, and without smoothing over time, and without the guided filter: flicker 0.11 %, 0.43 %, 0.21 %; holes
    0.02 %, 0.04 %, 0.10 %; in the worst frame 0.36 %, 0.51 %, 1.07 %."""
    pytest.importorskip("mediapipe")
    from gsth import media

    mattes: list[np.ndarray] = []
    greys: list[np.ndarray] = []
    with _mattes.Matter(512) as matter:
        for frame in media.frames(media.probe(clips / "hill.mp4"), 0, 60):
            mattes += matter.push(frame)
            greys.append(cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 2))
        mattes += matter.flush()
    flicker = []
    for i in range(1, len(mattes)):
        calm = np.abs(greys[i] - greys[i - 1]) < 2
        flicker.append((cv2.absdiff(mattes[i], mattes[i - 1])[calm] > 64).mean())
    assert np.mean(flicker) < 0.0018, "where the picture does not change, the matte does not"
    pierced = [holes(matte) for matte in mattes]
    assert np.mean(pierced) < 0.0007 and max(pierced) < 0.008, "nobody sees the wall through hair, chest and shoulders"
