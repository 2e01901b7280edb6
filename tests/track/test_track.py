"""From a video file to the artifact; needs a real face, so it runs on the recorded clips."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gsth import artifacts, head, media, track
from gsth.errors import InputError
from gsth.track import TrackConfig, _track
from gsth.types import Done, Event, Notice, Step, Track

FRAMES, SIZE = 40, 128


@pytest.fixture(scope="module")
def short(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of a real clip at a quarter of the size, without sound."""
    pytest.importorskip("mediapipe")
    path = tmp_path_factory.mktemp("clip") / "short.mp4"
    clip = media.probe(clips / "hill.mp4")
    media.write_video(path, (cv2.resize(f, (256, 256)) for f in media.frames(clip, 0, FRAMES)), clip.fps)
    return path


@pytest.fixture(scope="module")
def tracked(short: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """That clip tracked: artifact and events."""
    out = tmp_path_factory.mktemp("out") / "short.track"
    return out, list(track.run(short, out, TrackConfig(size=SIZE)))


@pytest.mark.real
def test_artifact_is_whole_and_sits_on_the_face(tracked: tuple[Path, list[Event]]) -> None:
    out, events = tracked
    made = artifacts.load(Track, out)
    assert not list(out.parent.glob(".*.seen")), "of a whole track, no detections are kept"
    assert made.images.shape == (FRAMES, SIZE, SIZE, 3) and made.mattes.shape == (FRAMES, SIZE, SIZE)
    assert made.plate is not None and made.plate.shape == (SIZE, SIZE, 3)
    assert made.found.all() and made.error_pct.median() < 2
    model = head.load(made.identity.head)
    verts = model.shaped(made.identity).posed(made.motion).verts
    points = model.landmarks(verts)
    k = made.cameras.Ks[0]
    px = points[..., :2] / points[..., 2:] * k[0, 0] + k[:2, 2]
    ruler = (made.landmarks_px[:, 263] - made.landmarks_px[:, 33]).norm(dim=-1)
    away = (px - made.landmarks_px)[:, :468].norm(dim=-1).mean(1) / ruler
    assert away.median() < 0.06, "without the fit's own offsets the mesh must sit on the face all the same"
    assert (verts[..., 2] > 0.2).all() and (verts[..., 2] < 5).all()
    assert [type(e) for e in events[-1:]] == [Done]
    assert any(isinstance(e, Notice) and "no sound" in e.text for e in events)


@pytest.mark.real
def test_progress_goes_up_in_every_stage(tracked: tuple[Path, list[Event]]) -> None:
    stages: dict[str, list[int]] = {}
    for e in tracked[1]:
        if isinstance(e, Step):
            assert 0 < e.done <= e.total
            stages.setdefault(e.stage, []).append(e.done)
    assert {"landmarks", "mattes", "report"} < set(stages)
    assert all(done == sorted(done) for done in stages.values())


@pytest.mark.real
def test_report_stands_alone(tracked: tuple[Path, list[Event]]) -> None:
    out, _ = tracked
    page = (out / "report.html").read_text()
    assert "http" not in page and "data:image/jpeg;base64," in page and "<svg" in page
    assert f"{FRAMES} at 25/s" in page
    assert media.probe(out / "overlay.mp4").frames == FRAMES


@pytest.mark.real
def test_plate_and_identity_are_blind_to_the_held_out_part(tracked: tuple[Path, list[Event]]) -> None:
    meta = artifacts.read_meta(tracked[0], "track")
    assert TrackConfig(**meta["config"]).train_frames(FRAMES) == 32
    assert {"error_pct", "lips_error_pct", "held_out_error_pct"} <= set(meta["quality"])


@pytest.mark.real
def test_two_people_side_by_side_are_refused(short: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.mp4"
    media.write_video(path, (np.concatenate((f, f), 1) for f in media.frames(media.probe(short), 0, 30)), 25)
    with pytest.raises(InputError, match="two faces"):
        list(track.run(path, tmp_path / "two.track"))
    assert not (tmp_path / "two.track").exists()


def test_a_clip_without_a_face_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    path = tmp_path / "wall.mp4"
    wall = np.full((96, 96, 3), 120, np.uint8)
    media.write_video(path, (wall for _ in range(30)), 25)
    with pytest.raises(InputError, match=r"wall\.mp4: no face was found"):
        list(track.run(path, tmp_path / "wall.track"))
    assert [p.name for p in tmp_path.iterdir()] == ["wall.mp4"]


@pytest.mark.parametrize("bad", [{"focal_px": 0.0}, {"size": 10}, {"holdout": 1.0}])
def test_config_says_what_it_wants(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match="wanted"):
        TrackConfig(**bad)


def test_train_frames_are_the_first_part() -> None:
    assert TrackConfig(holdout=0.2).train_frames(200) == 160
    assert TrackConfig(holdout=0).train_frames(200) == 200
    assert TrackConfig(holdout=0.9).train_frames(2) == 1


def test_two_streams_run_side_by_side_and_give_their_result() -> None:
    reached = threading.Event()

    def slow() -> Generator[Event, None, str]:
        yield Step("slow", 1, 2)
        assert reached.wait(10), "the other stream did not run meanwhile"
        yield Step("slow", 2, 2)
        return "result"

    def fast() -> Iterator[Event]:
        yield Step("fast", 1, 1)
        reached.set()

    threads = torch.get_num_threads()
    both = _track._alongside(slow(), fast())
    events: list[Event] = []
    with pytest.raises(StopIteration) as end:
        while True:
            events.append(next(both))
    assert end.value.value == "result" and torch.get_num_threads() == threads
    assert sorted(e.stage for e in events if isinstance(e, Step)) == ["fast", "slow", "slow"]


def test_what_fails_beside_is_raised_and_an_abandoned_run_ends() -> None:
    def broken() -> Generator[Event, None, str]:
        yield Step("slow", 1, 2)
        raise InputError("disk full")

    with pytest.raises(InputError, match="disk full"):
        list(_track._alongside(broken(), iter(())))

    def endless() -> Generator[Event, None, str]:
        while True:
            yield Step("slow", 1, 2)

    both = _track._alongside(endless(), iter([Step("fast", 1, 1)]))
    next(both)
    both.close()
    assert not any(t.name.startswith("ThreadPoolExecutor") for t in threading.enumerate())


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)


def test_importing_the_config_does_not_import_torch() -> None:
    ran = python("import sys; from gsth.track import TrackConfig; sys.exit('torch' in sys.modules)")
    assert ran.returncode == 0, ran.stderr


def test_without_mediapipe_the_extra_is_named() -> None:
    ran = python("import sys; sys.modules['cv2'] = None; from gsth import track; track.run")
    assert "MissingExtraError" in ran.stderr and "gsth[track]" in ran.stderr
