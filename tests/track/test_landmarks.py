"""Chunks side by side, going on, closeness and scale, with a detector that is told what to see."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gsth import media
from gsth.errors import InputError
from gsth.track import TrackConfig, _landmarks, _preflight, _track
from gsth.track._landmarks import Detections
from gsth.track.detectors import Face
from gsth.types import Clip, Done, Notice, Step

FRAMES, W, H = 120, 96, 64


def filmed(path: Path, frames: int) -> Clip:
    """A white square that moves 60 px over black."""

    def frame(i: int) -> np.ndarray:
        out = np.zeros((H, W, 3), np.uint8)
        out[20:30, 5 + i * 60 // frames : 15 + i * 60 // frames] = 255
        return out

    media.write_video(path, (frame(i) for i in range(frames)), 25.0)
    return media.probe(path)


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    """120 frames of it."""
    return filmed(tmp_path / "v.mp4", FRAMES)


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
        part = Detections.load(path)
        assert part is not None and len(part.found) == 60 and part.found.all()


def test_a_damaged_chunk_is_found_again(clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_landmarks, "CHUNK", 30)
    cache = tmp_path / "seen"
    cache.mkdir()
    whole = detected(clip, cache)
    empty, cut, other, _ = sorted(cache.glob("*.npz"))
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:5000])
    other.write_text("no chunk")
    Square.looked = []
    again = detected(clip, cache)
    assert len(Square.looked) == 90 + 2 * _landmarks.WARM_UP, "three chunks, the first without frames before it"
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(value, getattr(again, name), err_msg=name)
    assert all(Detections.load(path) is not None for path in (empty, cut, other)), "kept again"


def until_matte(clip: Clip, config: TrackConfig, out: Path) -> None:
    """Track, and stop where the detectors are through."""
    events = _track.track(clip, config, out)
    for event in events:
        if isinstance(event, Step) and event.stage != "landmarks":
            break
    events.close()  # type: ignore[attr-defined]


def test_a_stopped_track_keeps_what_was_detected_and_nothing_else(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_landmarks, "CHUNK", 30)
    monkeypatch.setattr(_track, "_detector", lambda config: Square)
    out, config = tmp_path / "v.track", TrackConfig(size=64, matte=False)
    until_matte(clip, config, out)
    cache = tmp_path / ".v.track.seen"
    assert sorted(p.name for p in tmp_path.iterdir()) == [cache.name, "v.mp4"]
    assert len(list(cache.glob("*.npz"))) == 4
    for path in sorted(cache.glob("*.npz"))[:2]:
        path.write_bytes(b"")
    Square.looked = []
    until_matte(clip, config, out)
    assert len(Square.looked) == 60 + _landmarks.WARM_UP, "what was whole was not looked at again"
    other = filmed(clip.path, 60)
    Square.looked = []
    until_matte(other, config, out)
    assert len(Square.looked) >= 60, "of another clip under the same name nothing is taken"


def test_without_a_face_in_the_training_part_the_reason_is_said(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_track, "_detector", lambda config: Square)
    Square.blind = range(40)
    config = TrackConfig(size=64, matte=False, holdout=0.6)
    with pytest.raises(InputError, match=r"v\.mp4: no face in the part to learn from, the first 48 of 120 .*--holdout"):
        list(_track.track(clip, config, tmp_path / "v.track"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".v.track.seen", "v.mp4"], "another share needs no new look"


@pytest.mark.parametrize("frames", [FRAMES, 250])
@pytest.mark.parametrize(("frame_s", "looked"), [(0.0, None), (0.25, 21), (0.5, 12), (9.0, 12)])
def test_a_check_asks_the_clock_after_every_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int, frame_s: float, looked: int | None
) -> None:
    """A machine that takes so many seconds for a frame."""

    class Slow(Square):
        def follow(self, picture: np.ndarray) -> list[Face]:
            clock[0] += frame_s
            return super().follow(picture)

    clock = [100.0]
    monkeypatch.setattr(_track, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(_track, "_detector", lambda config: Slow)
    *_, last, done = _track.check(filmed(tmp_path / "v.mp4", frames).path)
    assert isinstance(last, Notice) and "can be tracked" in last.text and isinstance(done, Done)
    assert done.values == {"frames": looked or min(frames, 192), "found": 1.0}


def test_a_check_without_any_time_judges_the_first_stretch(
    clip: Clip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_track, "CHECK_S", 0.0)
    monkeypatch.setattr(_track, "_detector", lambda config: Square)
    for path in (clip.path, filmed(tmp_path / "long.mp4", 250).path):
        *_, done = _track.check(path)
        assert isinstance(done, Done) and done.values["frames"] == _preflight.WINDOW
    Square.blind = range(13)
    with pytest.raises(InputError, match="found in [1-5] of 12 frames looked at only"):
        list(_track.check(clip.path))


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
    few = _landmarks.glance(clip, Square, windows, lambda: True)
    assert few.frame_ids.tolist() == list(range(10)) and len(few.found) == 10
    asked = iter((False, False, False, True, True))
    more = _landmarks.glance(clip, Square, windows, lambda: next(asked))
    assert more.frame_ids.tolist() == [*range(10), 110, 111, 112] and more.found.all(), "in the midst of a stretch"
    assert replace(seen).sign("light").shape == (30,)
