from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gsth import math3d, media
from gsth.avatar._avatar import trained_views
from gsth.errors import InputError
from gsth.serve._optics import Optics
from gsth.serve._paint import Film, Painter
from gsth.serve._range import TrainedRange
from gsth.serve.session import FROM_IMAGE, MODES, Session, Style

SIZE = (96, 96)


@pytest.fixture
def session(person: Any) -> Session:
    return Session(person)


@pytest.fixture
def painter(person: Any) -> Painter:
    return Painter(Optics.of(person))


def _painted(painter: Painter, session: Session, degrees: float = 0.0, **looks: Any) -> np.ndarray:
    session.style = dataclasses.replace(session.style, **looks)
    orbit = painter.optics.beside(degrees) if degrees else painter.optics.home(*SIZE)
    return painter.paint(session, session.moment(), dataclasses.replace(orbit, width=96, height=96), SIZE).numpy()


def test_every_mode_is_a_picture_of_its_own(painter: Painter, session: Session) -> None:
    pictures = [_painted(painter, session, mode=mode) for mode in MODES]
    assert len({p.tobytes() for p in pictures}) == len(MODES)


def test_alpha_is_white_on_the_face_and_black_beside_it(painter: Painter, session: Session) -> None:
    alpha = _painted(painter, session, mode="alpha")
    assert alpha[48, 40].min() > 220 and alpha[3, 3].max() == 0


def test_normals_turn_with_the_view(painter: Painter, session: Session) -> None:
    front, left = _painted(painter, session, mode="normals"), _painted(painter, session, 40, mode="normals")
    face = front[48, 40].astype(float) / 255
    assert face == pytest.approx([0.5, 0.5, 1.0], abs=0.1)  # a plate that faces the camera
    across = np.argwhere(left[48].astype(int).max(-1) > 150)[:, 0]
    x = left[48, across.mean().astype(int)].astype(float)[0] / 255
    assert abs(x - 0.5) == pytest.approx(0.5 * math.sin(math.radians(40)), abs=0.04)


def test_triangles_have_colours_of_their_own(painter: Painter, session: Session) -> None:
    flat = _painted(painter, session, mode="triangles").reshape(-1, 3)
    assert len(np.unique(flat // 32, axis=0)) > 12


def test_edges_and_centres_lie_on_the_face_and_not_beside_it(painter: Painter, session: Session) -> None:
    plain = _painted(painter, session, background="black").astype(int)
    alpha = _painted(painter, session, mode="alpha")[..., 0]
    for overlay in ("mesh", "centres"):
        drawn = _painted(painter, session, mode="rgb", overlay=overlay).astype(int)
        changed = np.abs(drawn - plain).max(-1) > 20
        assert changed.sum() > 20
        assert not changed[alpha == 0].any()


def test_a_backdrop_fills_the_picture_without_bending(painter: Painter, session: Session) -> None:
    with pytest.raises(InputError, match="no background image yet"):
        session.style = Style(background=FROM_IMAGE)
    image = torch.zeros(50, 200, 3)
    image[:, 100:] = 1.0
    session.backdrop = image
    drawn = _painted(painter, session, background=FROM_IMAGE)
    assert drawn[1, 2].max() == 0 and drawn[1, 93].min() == 255
    edge = np.flatnonzero(np.diff(drawn[1, :, 0].astype(int)) > 30)
    assert 45 <= edge.min() <= 50


def test_a_colour_of_ones_own(painter: Painter, session: Session) -> None:
    assert _painted(painter, session, background="#336699")[1, 1].tolist() == [0x33, 0x66, 0x99]


def test_another_avatar_stands_left_of_the_split(person: Any, session: Session) -> None:
    green = dataclasses.replace(
        person, splats=person.splats.replace(sh=person.splats.sh * 0 + torch.tensor((-1.0, 1.0, -1)))
    )
    painter = Painter(Optics.of(person), green)
    drawn = _painted(painter, session, compare="avatar", split=0.4).astype(int)
    assert drawn[48, 30, 1] > drawn[48, 30, 0] + 50
    assert drawn[48, 45, 0] > drawn[48, 45, 1]


@pytest.fixture
def filmed(person: Any, tmp_path: Path) -> Any:
    """The person with a film whose frame i has brightness 20 i."""
    path = tmp_path / "film.mp4"
    media.write_video(path, (np.full((96, 96, 3), 20 * i, np.uint8) for i in range(10)), 25.0, crf=1)
    return dataclasses.replace(person, source=dataclasses.replace(person.source, clip_path=path))


def test_the_film_gives_the_frame_that_is_asked_for(filmed: Any) -> None:
    film = Film(filmed)
    for frame in (0, 1, 2, 7, 3, 3, 9):
        picture = film.picture(frame)
        assert picture is not None
        assert float(picture.mean()) * 255 == pytest.approx(20 * frame, abs=4)


def test_the_video_stands_left_of_the_split(filmed: Any) -> None:
    session, painter = Session(filmed), Painter(Optics.of(filmed))
    session.seek(9)
    drawn = _painted(painter, session, compare="video", split=0.5)
    assert drawn[5, 5].mean() == pytest.approx(180, abs=5)
    assert drawn[5, 90].mean() < 120


def test_what_cannot_be_compared_is_said(person: Any, filmed: Any) -> None:
    painter = Painter(Optics.of(person))
    with pytest.raises(InputError, match="--against"):
        painter.check_compare(Session(person), "avatar")
    with pytest.raises(InputError, match="not at made_up.mp4 any more"):
        painter.check_compare(Session(person), "video")
    session = Session(filmed)
    painter.check_compare(session, "video")
    session.load(person.motion[:3])
    with pytest.raises(InputError, match="tracked clip only"):
        painter.check_compare(session, "video")


def test_the_meter_rises_with_the_angle_and_beyond_the_filmed_span(person: Any) -> None:
    meter, optics, session = TrainedRange(person), Optics.of(person), Session(person)
    levels = [meter.read(session.moment().motion, optics.beside(d)).level for d in (0.0, 5.0, 10.0, 40.0)]
    assert levels[0] < 0.1 and levels == sorted(levels) and levels[-1] == 1.0
    session.express("mouthSmileLeft", 0.9)
    reading = meter.read(session.moment().motion, optics.home(1, 1))
    assert reading.level == 1.0 and "mouthSmileLeft 0.90 (filmed 0.00 to 0.00)" in reading.reason


def test_the_meter_knows_what_further_clips_showed(person: Any) -> None:
    """The avatar's own motion is that of its first clip; views and spans of all clips stand in its meta."""
    optics, session = Optics.of(person), Session(person)
    session.express("mouthSmileLeft", 0.9)
    turned = [math3d.rotvec_to_quat(torch.tensor([[0.0, a, 0.0]])) for a in (0.0, 0.7)]
    seen = [math3d.quat_mul(person.motion[0].joints[:, 2], turn) for turn in turned]
    joints = [torch.cat((person.motion[0].joints[:, :2], q[:, None], person.motion[0].joints[:, 3:]), 1) for q in seen]
    two = person.motion[:2].replace(joints=torch.cat(joints), T_world_head=person.motion.T_world_head[[0, 0]])
    names = person.head.expression_names
    told = {"trained_views": trained_views(person.shaped, two), "trained_range": {name: [0.0, 1.0] for name in names}}
    both = dataclasses.replace(person, meta=told)
    motion = session.moment().motion.replace(joints=joints[1])
    assert TrainedRange(person).read(motion, optics.home(1, 1)).level == 1.0
    reading = TrainedRange(both).read(motion, optics.home(1, 1))
    assert reading.level < 0.1 and not reading.reason


def test_turning_the_head_under_the_camera_is_a_view_from_the_side(person: Any) -> None:
    meter, session = TrainedRange(person), Session(person)
    session.turn("head", 20, 0)
    reading = meter.read(session.moment().motion, Optics.of(person).home(1, 1))
    assert "seen from 2" in reading.reason
