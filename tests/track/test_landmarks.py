"""Chunks side by side, going on, closeness and scale, with a detector that is told what to see."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gsth import media
from gsth.track import _landmarks
from gsth.track._landmarks import Detections
from gsth.track.detectors import Face
from gsth.types import Clip, Step

FRAMES, W, H = 120, 96, 64


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """A white square that moves one px a frame over black."""

    def frame(i: int) -> np.ndarray:
        out = np.zeros((H, W, 3), np.uint8)
        out[20:30, 5 + i // 2 : 15 + i // 2] = 255
        return out

    media.write_video(tmp_path / "v.mp4", (frame(i) for i in range(FRAMES)), 25.0)
    return media.probe(tmp_path / "v.mp4")


class Square:
    """Sees the white square as a face; none in frames whose square lies in ``blind``."""

    looked: list[int] = []
    blind: range = range(0)

    def __init__(self) -> None:
        self.closed = False

    def follow(self, picture: np.ndarray) -> list[Face]:
        columns = np.flatnonzero(picture[..., 0].mean(0) > 20)
        x = float(columns.mean()) if len(columns) else 0.0
        Square.looked.append(round(x))
        if round(x) in Square.blind:
            return []
        points = np.random.default_rng(0).uniform(-5, 5, (478, 2)) + (x, 25)
        return [Face(points.astype(np.float32), {"jawOpen": 0.5})]

    def look(self, picture: np.ndarray) -> list[Face]:
        return []

    def body(self, picture: np.ndarray) -> np.ndarray | None:
        return None

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Square.looked, Square.blind = [], range(0)


def detected(clip: Clip, cache: Path | None = None) -> Detections:
    *steps, seen = _landmarks.detect(clip, Square, cache)
    assert all(isinstance(s, Step) for s in steps) and isinstance(seen, Detections)
    assert [s.done for s in steps][-1] == clip.frames  # type: ignore[union-attr]
    return seen


def test_all_frames_are_seen_once_in_order_whatever_the_chunks(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    x = None
    for size in (30, 55, 1000):
        monkeypatch.setattr(_landmarks, "CHUNK", size)
        seen = detected(clip)
        assert seen.frame_ids.tolist() == list(range(FRAMES)) and seen.found.all()
        middle = seen.points[:, :, 0].mean(1)
        assert (np.diff(middle) > -0.6).all() and middle[-1] - middle[0] == pytest.approx((FRAMES - 1) / 2, abs=1.5)
        assert x is None or np.allclose(x, middle)
        x = middle
        assert seen.score_names.tolist() == ["jawOpen"] and (seen.scores == 0.5).all()


def test_a_stopped_run_goes_on_where_it_was(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_landmarks, "CHUNK", 30)
    cache = tmp_path / "seen"
    cache.mkdir()
    whole = detected(clip, cache)
    kept = sorted(cache.glob("*.npz"))
    assert len(kept) == 4 and not list(cache.glob("*.part"))
    kept[1].unlink()
    Square.looked = []
    again = detected(clip, cache)
    assert len(Square.looked) == 30 + _landmarks.WARM_UP, "one chunk only was looked at again"
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(value, getattr(again, name), err_msg=name)


def test_stopping_stops_the_threads_and_keeps_no_half_chunk(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_landmarks, "CHUNK", 60)
    cache = tmp_path / "seen"
    cache.mkdir()
    running = _landmarks.detect(clip, Square, cache)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert not any(t.name.startswith("ThreadPoolExecutor") for t in threading.enumerate())
    for path in cache.glob("*.npz"):
        assert len(Detections.load(path).found) == 60 and Detections.load(path).found.all()


def test_what_a_detector_raises_is_raised(clip: Clip) -> None:
    class Broken(Square):
        def follow(self, picture: np.ndarray) -> list[Face]:
            raise RuntimeError("model is broken")

    with pytest.raises(RuntimeError, match="model is broken"):
        list(_landmarks.detect(clip, Broken))


def test_lost_frames_are_bridged_and_marked(clip: Clip) -> None:
    Square.blind = range(30, 40)
    seen = detected(clip)
    assert 15 < (~seen.found).sum() < 25 and np.isfinite(seen.points).all()
    assert np.isnan(seen.signs[~seen.found]).all() and np.isfinite(seen.signs[seen.found]).all()


def test_large_pictures_are_brought_down_and_points_brought_back(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = detected(clip)
    monkeypatch.setattr(_landmarks, "LOOK_PX", 48)
    small = detected(clip)
    middle = small.points.mean(1) - plain.points.mean(1)
    assert np.abs(middle[:, 0]).max() < 1.5, "in clip px although looked at in half the size"


def test_a_glance_stops_when_it_has_enough(clip: Clip) -> None:
    windows = [range(0, 10), range(110, 120), range(50, 60)]
    seen = _landmarks.glance(clip, Square, windows, lambda: False)
    assert seen.frame_ids.tolist() == [*range(10), *range(50, 60), *range(110, 120)]
    assert len(_landmarks.glance(clip, Square, windows, lambda: True).found) == 10
    assert replace(seen).sign("light").shape == (30,)
