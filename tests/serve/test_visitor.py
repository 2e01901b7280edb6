"""What goes to one page, and when."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gsth.serve import _visitor
from gsth.serve._optics import Optics
from gsth.serve._paint import Painter
from gsth.serve._view import Picture, Sketch, View
from gsth.serve._visitor import Visitor, take_share
from gsth.serve.session import Session


class Line:
    """Stands for the link: notes pictures, and may be cut."""

    def __init__(self) -> None:
        self.there = True
        self.came = threading.Semaphore(0)

    def picture(self, visitor: int, jpeg: bytes) -> bool:
        assert visitor == 7 and jpeg.startswith(b"\xff\xd8")
        if self.there:
            self.came.release()
        return self.there

    def brings(self, count: int) -> bool:
        """Whether so many more pictures come."""
        return all(self.came.acquire(timeout=30) for _ in range(count))


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def visitor(person: Any, line: Line, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visitor]:
    """Of a small page that shows a motion which plays."""
    monkeypatch.setattr(_visitor, "_NO_ANSWER_S", 300.0)
    monkeypatch.setattr(_visitor, "_NO_LINE_S", 300.0)
    with visiting(person, line, lambda *_: None) as (made, _):
        yield made


@contextlib.contextmanager
def visiting(person: Any, line: Line, sent: Callable[..., None]) -> Iterator[tuple[Visitor, Session]]:
    camera = SimpleNamespace(
        position=(0.0, 0.0, -1.0),
        wxyz=(1.0, 0.0, 0.0, 0.0),
        fov=0.4,
        image_width=48,
        image_height=48,
        on_update=lambda _: None,
    )
    session = Session(person)
    session.play()
    client: Any = SimpleNamespace(client_id=7, camera=camera)
    here: Any = line
    made = Visitor(client, View(session, Painter(Optics.of(person))), here, sent)
    yield made, session
    made.stop()


def test_no_more_than_two_pictures_are_under_way(visitor: Visitor, line: Line) -> None:
    assert line.brings(2)
    assert not line.came.acquire(timeout=0.5)
    visitor.saw()
    assert line.brings(1)
    assert not line.came.acquire(timeout=0.5)
    visitor.arrived()  # a new line: what was under way on the old one is lost
    assert line.brings(2)


def test_a_page_without_a_line_gets_its_picture_when_it_says_hello(person: Any, line: Line, visitor: Visitor) -> None:
    assert line.brings(2)
    line.there = False
    visitor.saw()
    visitor.saw()
    assert not line.came.acquire(timeout=0.5)
    line.there = True
    visitor.arrived()
    assert line.brings(2)


def test_pictures_come_in_their_order_though_two_are_drawn_at_once(
    person: Any, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other picture takes longer to draw than the one after it."""
    real, calls, at_once, most = View.draw, itertools.count(), [0], [0]

    def uneven(self: View, sketch: Sketch) -> Picture | None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        if next(calls) % 2 == 0:
            time.sleep(0.1)
        drawn = real(self, sketch)
        at_once[0] -= 1
        return drawn

    monkeypatch.setattr(View, "draw", uneven)
    shown: list[int] = []
    with visiting(person, line, lambda _, picture, __: shown.append(picture.moment.key[0])) as (here, session):
        session.pause()
        for _ in range(12):
            session.express("jawOpen", session.version % 2)
            here.saw()
            time.sleep(0.02)
        assert line.brings(4)
    assert shown == sorted(set(shown)) and most[0] == 2


def test_a_lane_takes_its_share_of_the_threads_and_nobody_elses() -> None:
    counts: dict[str, int] = {}

    def lane() -> None:
        take_share(2)
        counts["lane"] = torch.get_num_threads()

    before = torch.get_num_threads()
    for name, work in (("", lane), ("", lane), ("later", lambda: counts.update(later=torch.get_num_threads()))):
        thread = threading.Thread(target=work, name=name)
        thread.start()
        thread.join()
    assert counts == {"lane": max(1, before // 2), "later": before} and torch.get_num_threads() == before
