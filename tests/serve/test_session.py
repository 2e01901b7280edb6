from __future__ import annotations

import pytest
import torch

from gsth import math3d
from gsth.errors import InputError
from gsth.serve.session import Session, Style
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
    assert (moment.frame, moment.playing, session.next_frame_s()) == (0, False, None)
    assert torch.equal(moment.motion.expr, person.motion[0].expr)


def test_playing_follows_the_clock_and_loops(session: Session, clock: Clock) -> None:
    session.play()
    shown = []
    for _ in range(12):
        shown.append(session.moment().frame)
        clock.now += session.next_frame_s()
    assert shown == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert session.next_frame_s() == pytest.approx(1 / 25, abs=2e-3)


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
    assert session.moment().motion.expr[0].tolist() == [1.0, 0.0, 0.25, 0.0]
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
    with pytest.raises(InputError, match="video, grey"):
        session.style = Style("plaid")
    with pytest.raises(InputError, match="stands on madeup"):
        session.load(person.motion.replace(head=HeadId("other", "1", "f" * 16)))
