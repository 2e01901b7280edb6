"""What a person can count on a recorded clip is in its track. Counted by eye on single frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gsth import artifacts, head, track
from gsth.track import TrackConfig, _points
from gsth.types import Track

pytestmark = [pytest.mark.real, pytest.mark.slow]

BLINKS = ((23, 25), (32, 33), (112, 114), (170, 173))
"""First and last frame of hill.mp4 with the eyes shut."""
CLOSURES = ((33, 34), (60, 62), (73, 75), (86, 90), (112, 118), (148, 148))
"""Likewise with the lips together."""


@pytest.fixture(scope="module")
def hill(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Track:
    """The whole clip, tracked."""
    pytest.importorskip("mediapipe")
    out = tmp_path_factory.mktemp("hill") / "hill.track"
    for _ in track.run(clips / "hill.mp4", out, TrackConfig(report=False)):
        pass
    return artifacts.load(Track, out)


def gaps(made: Track, pairs: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Opening between lids or lips of the posed mesh over the distance of the outer eye corners [t]."""
    model = head.load(made.identity.head)
    points = model.landmarks(model.shaped(made.identity).posed(made.motion).verts)
    upper, lower = ([p[i] for p in pairs] for i in (0, 1))
    eyes = (points[:, _points.LEFT_OUTER] - points[:, _points.RIGHT_OUTER]).norm(dim=-1)
    return (points[:, upper] - points[:, lower]).norm(dim=-1).mean(1) / eyes


def dips(values: torch.Tensor, spans: tuple[tuple[int, int], ...], share: float) -> list[tuple[int, int]]:
    """The spans in which the value falls below a share of its median, within a frame."""
    low = share * values.median()
    return [(a, b) for a, b in spans if values[max(a - 1, 0) : b + 2].min() < low]


def test_every_blink_is_there(hill: Track) -> None:
    lids = gaps(hill, _points.LID_PAIRS_LEFT + _points.LID_PAIRS_RIGHT)
    assert dips(lids, BLINKS, 0.55) == list(BLINKS)
    between = torch.ones(len(lids), dtype=torch.bool)
    for a, b in BLINKS:
        between[max(a - 2, 0) : b + 12] = False  # lids come up slowly, and she looks down after the first two
    assert lids[between].min() > 0.6 * lids.median(), "no blinks that nobody made"


def test_lip_closures_are_there(hill: Track) -> None:
    lips = gaps(hill, _points.LIP_PAIRS)
    assert len(dips(lips, CLOSURES, 0.35)) >= 0.9 * len(CLOSURES)
    assert lips[18:31].min() > 0.7 * lips.median(), "an open mouth stays open"


def test_reprojection(hill: Track) -> None:
    assert hill.error_pct[hill.found].median() < 1.2
