from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from gsth import math3d, render
from gsth.serve import _view
from gsth.serve._optics import Optics, Orbit
from gsth.serve._paint import Painter
from gsth.serve._view import SETTLE_S, Picture, View
from gsth.serve.session import Moment, Session, Style
from gsth.types import Splats


class Clock:
    """A clock that the test turns; drawing takes the time that it says."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def optics(person) -> Optics:
    return Optics.of(person)


@pytest.fixture
def session(person, clock: Clock) -> Session:
    return Session(person, clock=clock)


@pytest.fixture
def view(session: Session, optics: Optics, clock: Clock) -> View:
    return View(session, Painter(optics), clock)


def _beside(optics: Optics, degrees: float, width: int = 96, height: int = 96) -> Orbit:
    """The home camera, gone round the head."""
    home = optics.home(width, height)
    turn = math3d.rotvec_to_quat(torch.tensor((0.0, math.radians(degrees), 0.0)))
    eye = optics.target + math3d.quat_rotate(turn, torch.tensor(home.position) - optics.target)
    wxyz = math3d.quat_mul(turn, torch.tensor(home.wxyz))
    return dataclasses.replace(home, position=tuple(eye.tolist()), wxyz=tuple(wxyz.tolist()))


def _drawn(view: View) -> Picture | None:
    """What one thread alone gets."""
    sketch = view.begin()
    return None if sketch is None else view.draw(sketch)


def _slow(monkeypatch: pytest.MonkeyPatch, clock: Clock, s_per_px: float) -> None:
    drawn = View._drawn

    def timed(self: View, orbit: Orbit, moment: object, height: int) -> torch.Tensor:
        rgb = drawn(self, orbit, moment, height)
        clock.now += s_per_px * rgb.shape[0] * rgb.shape[1]
        return rgb

    monkeypatch.setattr(View, "_drawn", timed)


def test_home_is_the_training_camera_to_the_pixel(optics: Optics, person) -> None:
    cameras = optics.cameras(optics.home(96, 96), 96, 96)
    assert torch.allclose(cameras.viewmats, person.cameras.viewmats, atol=1e-6)
    assert torch.allclose(cameras.Ks, person.cameras.Ks, atol=1e-4)
    twice = optics.cameras(optics.home(192, 192), 192, 192)
    assert torch.allclose(twice.Ks[0, :2], 2 * person.cameras.Ks[0, :2], atol=1e-4)


@pytest.mark.parametrize(("width", "height"), [(160, 80), (60, 120)])
def test_the_whole_crop_fits_into_any_canvas(optics: Optics, person, width: int, height: int) -> None:
    K = optics.cameras(optics.home(width, height), width, height).Ks[0]
    side = min(width, height)
    corner = torch.linalg.inv(person.cameras.Ks[0]) @ torch.tensor((96.0, 96.0, 1.0))
    at = math3d.project(corner[None], K)[0]
    assert at.tolist() == pytest.approx([(width + side) / 2, (height + side) / 2], abs=1e-3)


@pytest.mark.parametrize("degrees", [-70.0, 25.0, 180.0])
def test_the_head_stays_at_its_place_from_every_side(optics: Optics, degrees: float) -> None:
    places = []
    for orbit in (optics.home(96, 96), _beside(optics, degrees)):
        cameras = optics.cameras(orbit, 96, 96)
        seen = cameras.viewmats[0] @ torch.cat((optics.target, torch.ones(1)))
        assert torch.linalg.det(cameras.viewmats[0, :3, :3]) == pytest.approx(1.0, abs=1e-5)
        places.append(torch.cat((math3d.project(seen[None, :3], cameras.Ks[0])[0], seen[2:3])))
    assert torch.allclose(places[0], places[1], atol=1e-3)


def test_the_first_picture_is_the_training_view(view: View, optics: Optics, person) -> None:
    view.look(optics.home(96, 96))
    picture = _drawn(view)
    want = render.render(person.pose(person.motion[0]), person.cameras, background=person.plate).rgb[0]
    assert picture is not None and picture.full
    assert (picture.rgb.float() / 255 - want).abs().max() < 0.01
    assert picture.stats.splats == 32


def test_a_wide_canvas_shows_the_plate_in_the_middle(view: View, optics: Optics, person) -> None:
    view.look(optics.home(192, 96))
    rgb = _drawn(view).rgb.float() / 255
    assert torch.allclose(rgb[2, 50], person.plate[2, 2], atol=0.01)
    assert torch.allclose(rgb[2, 140], person.plate[2, 92], atol=0.01)
    assert torch.allclose(rgb[2, 10], person.plate.mean((0, 1)), atol=0.01)


def test_the_plate_stands_only_in_the_training_view(view: View, optics: Optics, person) -> None:
    view.look(_beside(optics, 40))
    rgb = _drawn(view).rgb.float() / 255
    assert torch.allclose(rgb[1, 1], person.plate.mean((0, 1)), atol=0.01)
    assert torch.allclose(rgb[1, 94], rgb[1, 1])


def test_a_plain_background_is_that_colour(view: View, session: Session, optics: Optics) -> None:
    session.style = Style(background="white")
    view.look(optics.home(96, 96))
    assert _drawn(view).rgb[1, 1].tolist() == [255, 255, 255]


def test_nothing_is_drawn_twice(view: View, session: Session, optics: Optics) -> None:
    assert _drawn(view) is None
    view.look(optics.home(96, 96))
    first = _drawn(view)
    assert _drawn(view) is None and view.wait_s() is None
    view.look(optics.home(96, 96))
    assert _drawn(view) is None
    session.express("jawOpen", 1.0)
    assert view.changed.is_set()
    assert not torch.equal(_drawn(view).rgb, first.rgb)


def test_small_while_the_camera_moves_full_at_rest(
    view: View, optics: Optics, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _slow(monkeypatch, clock, 0.1 / 96**2)
    view.look(optics.home(96, 96))
    assert _drawn(view).full
    clock.now += 1
    view.look(_beside(optics, 5))
    moving = _drawn(view)
    assert (moving.full, moving.stats.height) == (False, 48)
    assert _drawn(view) is None
    assert 0 < view.wait_s() < SETTLE_S
    clock.now += view.wait_s() + 1e-6
    rest = _drawn(view)
    assert rest.full and rest.stats.height == 96
    assert _drawn(view) is None and view.wait_s() is None


def test_one_hold_up_makes_no_picture_smaller(
    view: View, optics: Optics, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = iter((0.001, 0.001, 5.0, 0.001))
    drawn = View._drawn

    def timed(self: View, orbit: Orbit, moment: object, height: int) -> torch.Tensor:
        clock.now += next(took)
        return drawn(self, orbit, moment, height)

    monkeypatch.setattr(View, "_drawn", timed)
    for degrees in range(4):
        view.look(_beside(optics, degrees))
        picture = _drawn(view)
        assert picture is not None and picture.full


def test_no_picture_is_smaller_for_nothing(
    view: View, optics: Optics, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where posing or many splats, and not pixels, take the time, a small picture would be as late."""
    splats = Session.splats
    monkeypatch.setattr(_view, "_SPLAT_PX", 1e6)

    def slow(self: Session, moment: Moment) -> Splats:
        clock.now += 0.1
        return splats(self, moment)

    monkeypatch.setattr(Session, "splats", slow)
    _slow(monkeypatch, clock, 0.05 / 96**2)
    view.look(optics.home(96, 96))
    _drawn(view)
    clock.now += 1
    view.look(_beside(optics, 5))
    picture = _drawn(view)
    assert picture is not None and picture.full


def test_a_quick_renderer_draws_full_size_even_while_moving(view: View, optics: Optics, clock: Clock) -> None:
    view.look(optics.home(96, 96))
    _drawn(view)
    view.look(_beside(optics, 5))
    assert _drawn(view).full


def test_only_the_newest_camera_is_drawn(view: View, optics: Optics) -> None:
    for degrees in (1, 2, 3):
        view.look(_beside(optics, degrees))
    view.look(optics.home(96, 96))
    _drawn(view)
    assert _drawn(view) is None and view.dropped == 3


def test_a_slow_picture_of_a_place_already_left_is_not_shown(
    view: View, optics: Optics, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = View._drawn

    def left_meanwhile(self: View, orbit: Orbit, moment: object, height: int) -> torch.Tensor:
        rgb = drawn(self, orbit, moment, height)
        clock.now += 1
        view.look(_beside(optics, 9))
        return rgb

    monkeypatch.setattr(View, "_drawn", left_meanwhile)
    view.look(optics.home(96, 96))
    assert _drawn(view) is None and view.dropped == 1
    assert view.changed.is_set()
    assert _drawn(view) is not None


def test_playing_waits_for_the_next_picture(view: View, session: Session, optics: Optics, clock: Clock) -> None:
    view.look(optics.home(96, 96))
    session.play()
    positions = []
    for _ in range(7):
        positions.append(_drawn(view).moment.key[1])
        clock.now += view.wait_s()
    assert positions == pytest.approx([0, 5 / 6, 10 / 6, 15 / 6, 20 / 6, 25 / 6, 5])


def test_a_page_that_lost_its_picture_gets_it_again(view: View, optics: Optics) -> None:
    view.look(optics.home(96, 96))
    assert _drawn(view) is not None and _drawn(view) is None
    view.changed.clear()
    view.again()
    assert view.changed.is_set() and _drawn(view) is not None


def test_a_picture_that_took_too_long_is_followed_at_once(
    view: View, session: Session, optics: Optics, clock: Clock
) -> None:
    view.look(optics.home(96, 96))
    session.play()
    assert _drawn(view) is not None
    clock.now += 1.5 / 30
    assert view.wait_s() == 0
    assert _drawn(view) is not None
    assert view.wait_s() == pytest.approx(0.5 / 30, abs=1e-3)


def test_the_picture_keeps_to_the_limit_and_the_canvas_shape(view: View, session: Session, optics: Optics) -> None:
    session.style = Style(max_height=50)
    view.look(optics.home(400, 200))
    assert tuple(_drawn(view).rgb.shape) == (50, 100, 3)
    view.look(dataclasses.replace(optics.home(400, 200), width=0, height=0))
    assert min(_drawn(view).rgb.shape[:2]) == _view.MIN_SIDE


def test_rate_counts_the_last_second(view: View, session: Session, optics: Optics, clock: Clock) -> None:
    view.look(optics.home(96, 96))
    for i in range(30):
        clock.now += 0.1
        session.express("jawOpen", (i + 1) / 31)
        picture = _drawn(view)
    assert picture.stats.fps == pytest.approx(11, abs=1)


def test_a_closed_view_hears_no_more(view: View, session: Session) -> None:
    view.close()
    session.express("jawOpen", 1.0)
    assert not view.changed.is_set()
