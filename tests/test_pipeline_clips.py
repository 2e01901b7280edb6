"""Which clips are tracked, as whom, and what a second run finds; tracking itself is replaced by a finished track."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_work
import torch

import gsth.track
from gsth import _pipeline_clips as clips
from gsth import artifacts, metrics
from gsth.errors import InputError, MissingExtraError
from gsth.track import TrackConfig
from gsth.types import Clip, Done, Event, Identity, Notice, Track

CONFIG = replace(small_work.config().track, focal_px=900.0)
Call = tuple[str, TrackConfig, Identity | None]


@pytest.fixture(scope="module")
def clay(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return small_work.track(tmp_path_factory.mktemp("clay") / "clip.mp4")


@pytest.fixture
def videos(clay: Track, tmp_path: Path) -> list[Path]:
    """Two, that differ."""
    data, made = clay.clip.path.read_bytes(), [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for path, more in zip(made, (b"", b"\0" * 8), strict=True):
        path.write_bytes(data + more)  # an empty box says nothing
    return made


@pytest.fixture
def tracking(clay: Track, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What tracking was asked; it says that everybody is who the first clip showed."""
    calls: list[Call] = []

    def track(clip: Clip, config: TrackConfig, out: Path, who: Identity | None = None) -> Iterator[Event]:
        calls.append((clip.path.name, config, who))
        artifacts.save(clay.replace(clip=clip, identity=who or clay.identity), out)
        yield Done(out)

    monkeypatch.setattr(gsth.track, "track", track)
    return calls


def faces(monkeypatch: pytest.MonkeyPatch, apart: float) -> None:
    """Every face after the first clip's is this far from it."""
    seen: list[int] = []

    def embed(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        seen.append(len(landmarks))
        return np.eye(128)[0] * (apart if len(seen) > 5 else 0.0)

    monkeypatch.setattr(metrics, "dlib_embedder", lambda: embed)


def test_further_clips_are_tracked_as_the_first_ones_person(
    videos: list[Path], tmp_path: Path, tracking: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    faces(monkeypatch, 0.4)
    work = tmp_path / "w"
    list(clips.tracked(videos, work, CONFIG))
    (first, own, nobody), (second, theirs, who) = tracking
    assert (first, second, nobody) == ("a.mp4", "b.mp4", None)
    assert own == CONFIG and theirs == replace(CONFIG, holdout=0.0, focal_px=None)
    assert who is not None and torch.equal(who.shape, clips.tracks(work)[0].identity.shape)
    assert [t.clip.path.name for t in clips.tracks(work)] == ["a.mp4", "b.mp4"]
    faces(monkeypatch, 0.4)
    said = [e.text for e in clips.tracked(videos, work, CONFIG) if isinstance(e, Notice)]
    assert len(tracking) == 2 and all("going on with the track" in text for text in said) and len(said) == 2
    list(clips.tracked(videos[:1], work, CONFIG))  # an earlier clip that is not given any more is not trained on
    assert [t.clip.path.name for t in clips.tracks(work)] == ["a.mp4"]


def test_another_person_is_refused(
    videos: list[Path], tmp_path: Path, tracking: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    faces(monkeypatch, 0.7)
    with pytest.raises(InputError, match=r"b.mp4: shows another person than .*a.mp4 .*0.70 apart, 0.6 at most"):
        list(clips.tracked(videos, tmp_path / "w", CONFIG))


def test_without_the_network_for_faces_the_person_is_not_checked_and_that_is_said(
    videos: list[Path], tmp_path: Path, tracking: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise MissingExtraError("dlib-bin", "eval", "telling faces apart")

    monkeypatch.setattr(metrics, "dlib_embedder", absent)
    said = [e.text for e in clips.tracked(videos, tmp_path / "w", CONFIG) if isinstance(e, Notice)]
    assert len(said) == 1 and "is not checked" in said[0] and "eval" in said[0]


def test_a_clip_given_twice_is_refused(videos: list[Path], tmp_path: Path, tracking: list[Call]) -> None:
    with pytest.raises(InputError, match="a.mp4: is the same video as .*a.mp4; give every clip once"):
        list(clips.tracked([*videos, videos[0]], tmp_path / "w", CONFIG))
    assert not tracking
