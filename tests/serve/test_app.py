from __future__ import annotations

import shutil
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsth.errors import GsthError, InputError
from gsth.serve import _panel, app
from gsth.serve.app import Page, ViewConfig
from gsth.types import Notice

pytest.importorskip("viser", reason="viser is absent: pip install 'gsth[viewer]'")

SKIN = np.array((0.85, 0.6, 0.5)) * 255
CHROMIUM_FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader"
).split()


def _until(holds: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = holds()
        if value is not None and value is not False:
            return value
        time.sleep(0.1)
    pytest.fail(f"waited {seconds} s in vain for {what}")


@pytest.fixture
def page(person: Any) -> Iterator[Page]:
    with Page(person, ViewConfig(port=0)) as page:
        yield page


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is absent: pip install 'gsth[dev]'")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def _shot(tab: Any) -> np.ndarray:
    import imageio.v3 as iio

    return iio.imread(tab.screenshot(), extension=".png")[..., :3].astype(int)


def _skin(picture: np.ndarray) -> np.ndarray:
    """Where the made-up face is, [h w]."""
    return np.abs(picture - SKIN).max(-1) < 25


def _face(tab: Any) -> np.ndarray | None:
    """Where the made-up face is, once it is there."""
    skin = _skin(_shot(tab))
    return skin if skin.sum() > 2000 else None


def test_the_page_is_served_and_its_port_is_free_again_afterwards(person: Any, capsys: pytest.CaptureFixture) -> None:
    with Page(person, ViewConfig(port=0)) as page:
        port = int(page.url.rsplit(":", 1)[1])
        assert urllib.request.urlopen(page.url, timeout=10).status == 200
    assert capsys.readouterr().out == ""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))


def test_a_taken_port_is_refused_with_another_one(person: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} of 127.0.0.1 is in use.*--port {port + 1}"):
            Page(person, ViewConfig(port=port))


def test_wrong_addresses_are_refused(person: Any) -> None:
    with pytest.raises(InputError, match="wanted 0 to 65535"):
        Page(person, ViewConfig(port=70000))
    with pytest.raises(InputError, match="cannot be served from"):
        Page(person, ViewConfig(port=0, host="203.0.113.7"))


def test_what_is_no_avatar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GsthError, match="nowhere"):
        next(app.run(tmp_path / "nowhere", ViewConfig(port=0)))


def test_run_says_where_and_ends_on_interrupt(person: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from gsth.avatar import Avatar

    def interrupted(self: Page) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Avatar, "load", lambda path: person)
    monkeypatch.setattr(Page, "wait", interrupted)
    first, last = app.run(tmp_path, ViewConfig(port=0))
    assert isinstance(first, Notice) and "http://127.0.0.1:" in first.text
    assert last.path == tmp_path


def test_expressions_are_grouped_once_each() -> None:
    names = ("browInnerUp", "jawOpen", "mouthClose", "expr_3", "tongueOut")
    assert _panel.grouped(names) == {
        "Brows": ["browInnerUp"],
        "Jaw and tongue": ["jawOpen", "tongueOut"],
        "Mouth": ["mouthClose"],
        "Other": ["expr_3"],
    }


def test_every_expression_has_a_slider(page: Page, person: Any) -> None:
    assert sorted(page.panel.sliders) == sorted(person.head.expression_names)


def test_speech_is_put_on_and_played(page: Page, person: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = pytest.importorskip("gsth.drive.audio")
    heard: list[bytes] = []

    class Mumbling:
        def __init__(self, wav: Path) -> None:
            heard.append(wav.read_bytes())

        def build(self, avatar: Any) -> Any:
            return self

        def stream(self) -> Iterator[Any]:
            yield person.motion[2:5]

    monkeypatch.setattr(drive, "Config", Mumbling)
    page.panel.speak("hello.wav", b"RIFF")
    assert heard == [b"RIFF"]
    assert page.session.frames == 3 and page.session.next_frame_s() is not None
    # The page leaves out what is not visible, and would not play it.
    assert page.panel._sound.visible
    assert "base64,UklGRg==" in page.panel._sound.content
    page.panel._pause()
    assert page.panel._sound.content == "" and page.session.next_frame_s() is None


@pytest.mark.browser
def test_the_face_is_seen_and_a_slider_moves_it(page: Page, chromium: Any) -> None:
    tab = chromium.new_page(viewport={"width": 900, "height": 500})
    try:
        tab.goto(page.url)
        before = _until(lambda: _face(tab), "the face")
        tab.get_by_text("Expression", exact=True).click()
        tab.get_by_text("Jaw and tongue", exact=True).click()
        slider = tab.get_by_role("slider").last
        slider.focus()
        slider.press("End")
        _until(lambda: bool(page.session.moment().motion.expr[0, 2] == 1.0), "the slider to arrive")
        chin = np.flatnonzero(before.any(1)).max()
        _until(lambda: bool(np.flatnonzero(_skin(_shot(tab)).any(1)).max() > chin + 10), "the chin to fall")
        assert "32 splats" in tab.content()
    finally:
        tab.close()


@pytest.mark.browser
def test_the_first_view_is_the_videos_and_turning_leaves_it(page: Page, person: Any, chromium: Any) -> None:
    tab = chromium.new_page(viewport={"width": 900, "height": 500})
    try:
        tab.goto(page.url)
        skin = _until(lambda: _face(tab), "the face")
        from gsth import render

        want = render.render(person.pose(person.motion[0]), person.cameras, background=person.plate)
        rows, columns = (np.flatnonzero(_skin(want.rgb[0].numpy() * 255).any(axis)) for axis in (1, 0))
        got_rows, got_columns = (np.flatnonzero(skin.any(axis)) for axis in (1, 0))
        canvas = tab.locator("canvas").first.bounding_box()
        scale = min(canvas["width"], canvas["height"]) / 96
        x0, y0 = canvas["x"] + (canvas["width"] - 96 * scale) / 2, canvas["y"] + (canvas["height"] - 96 * scale) / 2
        assert got_rows.min() == pytest.approx(y0 + rows.min() * scale, abs=2 * scale)
        assert got_columns.min() == pytest.approx(x0 + columns.min() * scale, abs=2 * scale)
        tab.mouse.move(150, 400)
        tab.mouse.down()
        tab.mouse.move(290, 400, steps=5)
        tab.mouse.up()
        _until(lambda: bool(_skin(_shot(tab)).sum() < 0.9 * skin.sum()), "the face to turn away")
    finally:
        tab.close()
