from __future__ import annotations

import contextlib
import dataclasses
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsth import math3d
from gsth.errors import InputError
from gsth.serve.session import MAX_GAZE_RAD, Session, Style
from gsth.types import HeadId


class Clock:
    """A clock that the test turns."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def session(person, clock: Clock) -> Session:
    return Session(person, clock=clock)


def test_it_starts_paused_on_the_tracked_motion(session: Session, person, clock: Clock) -> None:
    clock.now += 3
    moment = session.moment()
    assert (moment.frame, moment.playing, session.next_moment_s()) == (0, False, None)
    assert torch.equal(moment.motion.expr, person.motion[0].expr)


def test_playing_follows_the_clock_and_loops(session: Session, clock: Clock) -> None:
    session.play()
    shown = []
    for _ in range(14):
        shown.append(session.moment().frame)
        clock.now += session.next_moment_s()
    # 25 frames of motion make 30 pictures.
    assert shown == [0, 0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 0, 0]
    assert session.next_moment_s() == pytest.approx(1 / 30, abs=2e-3)


def test_between_two_frames_it_moves_on(session: Session, person, clock: Clock) -> None:
    session.play()
    clock.now += 1.5 / 30
    moment, (here, after) = session.moment(), (person.motion[0], person.motion[1])
    share = 25 / 30
    assert moment.frame == 0
    assert torch.allclose(moment.motion.expr, torch.lerp(here.expr, after.expr, share))
    assert torch.allclose(moment.motion.joints, math3d.quat_slerp(here.joints, after.joints, share), atol=1e-6)
    moved = torch.lerp(here.T_world_head, after.T_world_head, share)
    assert torch.allclose(moment.motion.T_world_head[:, 4:], moved[:, 4:])
    clock.now += (9.6 - 1.25) / 25  # the last frame stays until the motion begins again
    last = session.moment()
    assert last.frame == 9 and torch.equal(last.motion.expr, person.motion[9].expr)


def test_a_quick_motion_and_one_beside_its_video_are_shown_frame_by_frame(session: Session, clock: Clock) -> None:
    session.play()
    session.set_speed(2.0)
    assert session.next_moment_s() == pytest.approx(1 / 50, abs=2e-3)
    session.set_speed(1.0)
    session.style = Style(compare="video")
    clock.now += 1.9 / 25
    assert session.moment().key[1] == 1


def test_without_loop_it_stops_at_the_end_and_play_starts_again(session: Session, clock: Clock) -> None:
    session.set_loop(False)
    session.play()
    clock.now += 60
    moment = session.moment()
    assert (moment.frame, moment.playing) == (9, False)
    session.play()
    assert (session.moment().frame, session.moment().playing) == (0, True)


def test_pause_keeps_the_frame_and_seek_moves_it(session: Session, clock: Clock) -> None:
    session.play()
    clock.now += 3.5 / 25
    session.pause()
    clock.now += 5
    assert session.moment().frame == 3
    session.seek(7)
    assert session.moment().frame == 7
    session.seek(99)
    assert session.moment().frame == 9
    session.play()
    clock.now += 1.01 / 25
    assert session.moment().frame == 0


def test_an_expression_is_held_until_it_is_given_back(session: Session, person) -> None:
    session.seek(9)
    session.express("jawOpen", 0.25)
    session.express("browInnerUp", 7.0)
    assert session.moment().motion.expr[0].tolist() == [1.0, 0.0, 0.25, 0.0, 0.0]
    session.express("jawOpen", None)
    assert session.moment().motion.expr[0, 2] == 1.0
    session.reset(("browInnerUp",))
    assert torch.equal(session.moment().motion.expr, person.motion[9].expr)


def test_the_avatars_own_motion_is_never_written_to(session: Session, person) -> None:
    before = person.motion.expr.clone(), person.motion.joints.clone()
    session.express("jawOpen", 0.9)
    session.turn("gaze", 20, 10)
    session.moment()
    assert torch.equal(person.motion.expr, before[0]) and torch.equal(person.motion.joints, before[1])


@pytest.mark.parametrize(
    ("turn", "axis", "sign"),
    [((10.0, 0.0, 0.0), 0, 1), ((0.0, 10.0, 0.0), 1, -1), ((-10.0, 0.0, 0.0), 0, -1)],
)
def test_turning_points_the_face_where_it_says(session: Session, turn, axis: int, sign: int) -> None:
    session.turn("head", *turn)
    facing = math3d.quat_rotate(session.moment().motion.joints[0, 2], torch.tensor((0.0, 0.0, -1.0)))
    assert facing[axis] * sign == pytest.approx(0.17365, abs=1e-4)


def test_roll_is_clockwise_and_gaze_turns_both_eyes(session: Session) -> None:
    session.turn("head", 0, 0, 10)
    joints = session.moment().motion.joints[0]
    assert math3d.quat_rotate(joints[2], torch.tensor((1.0, 0.0, 0.0)))[1] == pytest.approx(0.17365, abs=1e-4)
    session.reset()
    session.turn("gaze", 30, 0)
    joints = session.moment().motion.joints[0]
    assert torch.equal(joints[3], joints[4]) and joints[3, 0] == pytest.approx(0.9659, abs=1e-4)
    assert joints[2].tolist() == [1, 0, 0, 0]


def test_keys_change_with_what_is_seen_and_only_then(session: Session, clock: Clock) -> None:
    first = session.moment().key
    clock.now += 10
    assert session.moment().key == first
    session.express("jawOpen", 0.5)
    assert session.moment().key != first


def test_one_moment_is_posed_once(session: Session) -> None:
    moment = session.moment()
    assert session.splats(moment) is session.splats(moment)
    session.express("jawOpen", 1.0)
    assert session.splats(session.moment()) is not session.splats(moment)


def test_listeners_hear_changes_until_they_leave(session: Session) -> None:
    heard = []
    leave = session.listen(lambda: heard.append(1))
    session.play()
    session.style = Style("white")
    assert len(heard) == 2
    leave()
    session.pause()
    assert len(heard) == 2


def test_another_motion_comes_on_from_its_start(session: Session, person, clock: Clock) -> None:
    session.seek(4)
    session.load(person.motion.replace(expr=person.motion.expr + 0.5), loop=False)
    session.play()
    assert session.moment().motion.expr[0, 0] == 0.5
    clock.now += 60
    assert not session.moment().playing


def test_wrong_names_are_refused_with_what_there_is(session: Session, person) -> None:
    with pytest.raises(InputError, match="no expression 'jawopen'"):
        session.express("jawopen", 1.0)
    with pytest.raises(InputError, match="gaze, head, neck"):
        session.turn("torso", 1, 1)
    with pytest.raises(InputError, match="video, image, grey"):
        session.style = Style("plaid")
    with pytest.raises(InputError, match="stands on madeup"):
        session.load(person.motion.replace(head=HeadId("other", "1", "f" * 16)))


def test_speed_stretches_time_and_keeps_the_place(session: Session, clock: Clock) -> None:
    session.play()
    clock.now += 2.2 / 25
    session.set_speed(0.5)
    assert session.moment().frame == 2
    clock.now += 4 / 25
    assert session.moment().frame == 4
    # At frame 4.2 of a motion of 12.5 frames/s, of which 30 pictures are made: the next is at 11/30 of a second.
    assert session.next_moment_s() == pytest.approx(11 / 30 - 4.2 / 12.5, abs=2e-3)
    session.set_speed(99)
    assert session.transport.speed == 4.0


def test_the_eyes_look_at_a_point_as_far_as_they_can(session: Session, person) -> None:
    eye = person.shaped.pivots[3] + session.moment().motion.T_world_head[0, 4:]
    session.look_at((float(eye[0]) + 0.1, float(eye[1]), float(eye[2]) - 0.4))
    gaze = math3d.quat_rotate(session.moment().motion.joints[0, 3], torch.tensor((0.0, 0.0, -1.0)))
    assert torch.allclose(gaze, torch.nn.functional.normalize(torch.tensor((0.1, 0.0, -0.4)), dim=0), atol=1e-4)
    session.look_at((5.0, 0.0, 0.0))
    gaze = math3d.quat_rotate(session.moment().motion.joints[0, 3], torch.tensor((0.0, 0.0, -1.0)))
    assert gaze[0] == pytest.approx(math.sin(MAX_GAZE_RAD), abs=1e-3)
    session.look_at(None)
    assert torch.equal(session.moment().motion.joints, person.motion[0].joints)


def test_the_gaze_allows_for_a_turned_head(session: Session) -> None:
    session.turn("head", 20, 0)
    session.look_at((0.02, -0.05, -2.0))
    joints = session.moment().motion.joints[0]
    gaze = math3d.quat_rotate(math3d.quat_mul(joints[2], joints[3]), torch.tensor((0.0, 0.0, -1.0)))
    assert abs(float(gaze[0])) < 0.02


def test_the_end_is_told(session: Session, clock: Clock) -> None:
    session.set_loop(False)
    session.play()
    heard = []
    session.listen(lambda: heard.append(session.transport.playing))
    clock.now += 60
    session.moment()
    assert heard == [False]


def test_another_state_of_the_avatar_is_worn(session: Session, person) -> None:
    session.seek(3)
    bald = dataclasses.replace(person, splats=person.splats.replace(logit_opacities=person.splats.logit_opacities - 9))
    before = session.splats(session.moment())
    session.wear(bald)
    assert session.moment().frame == 3
    assert float(session.splats(session.moment()).opacities.max()) < float(before.opacities.max()) / 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_and_changes_nothing(session: Session, bad: float) -> None:
    version = session.version
    for attempt in (
        lambda: session.express("jawOpen", bad),
        lambda: session.turn("head", bad, 0),
        lambda: session.look_at((bad, 0.0, 0.0)),
        lambda: session.set_speed(bad),
    ):
        with pytest.raises(InputError):
            attempt()
    assert session.version == version


@pytest.mark.parametrize(
    "looks", [{"mode": "x"}, {"overlay": "x"}, {"compare": "x"}, {"split": 2.0}, {"max_height": 1}]
)
def test_unknown_looks_are_refused(looks: dict) -> None:
    with pytest.raises(InputError):
        Style(**looks)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(allow_nan=True)), max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_controls_leaves_a_session_that_draws(person, steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    session = Session(person, clock=clock)
    for what, value in steps:
        clock.now += 0.05
        with contextlib.suppress(InputError):
            (
                session.play,
                session.pause,
                lambda value=value: session.seek(int(value) if math.isfinite(value) else 3),
                lambda value=value: session.set_speed(value),
                lambda value=value: session.set_loop(value > 0),
                lambda value=value: session.express("jawOpen", value),
                lambda value=value: session.turn("head", value, -value, value),
                lambda value=value: session.look_at((value, 0.0, -1.0)),
                session.reset,
                lambda: session.load(person.motion[2:4]),
            )[what]()
    moment = session.moment()
    assert 0 <= moment.frame < session.frames
    assert bool(torch.isfinite(session.splats(moment).means).all())
    wait = session.next_moment_s()
    assert wait is None or 0 < wait < 1
