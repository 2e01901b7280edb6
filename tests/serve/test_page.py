"""The page itself, in headless Chromium: every tab, microphone, files, recordings, phones, visitors."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from watching import until

from gsth.serve import protocol
from gsth.serve._panel_drive import Playable
from gsth.serve.app import Page, ViewConfig

pytest.importorskip("viser", reason="viser is absent: pip install 'gsth[viewer]'")
pytestmark = pytest.mark.browser

SKIN = np.array((0.85, 0.6, 0.5)) * 255
CHROMIUM_FLAGS = (
    "--no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--autoplay-policy=no-user-gesture-required --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
).split()


@pytest.fixture(scope="module")
def chromium(launch_chromium: Callable[[list[str]], Any]) -> Iterator[Any]:
    browser = launch_chromium(CHROMIUM_FLAGS)
    yield browser
    browser.close()


@contextlib.contextmanager
def _tab(chromium: Any, **options: Any) -> Iterator[Any]:
    """A page that must not say anything is wrong."""
    tab = chromium.new_page(**{"viewport": {"width": 900, "height": 500}, **options})
    tab.set_default_timeout(90_000)
    wrong: list[str] = []
    tab.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda e: wrong.append(str(e)))
    yield tab
    tab.close()
    assert wrong == []


@pytest.fixture
def tab(chromium: Any) -> Iterator[Any]:
    with _tab(chromium) as tab:
        yield tab


@pytest.fixture
def page(person: Any) -> Iterator[Page]:
    with Page(person, ViewConfig(port=0)) as page:
        yield page


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


def _row(tab: Any, label: str) -> Any:
    """The control beside a label."""
    return tab.get_by_text(label, exact=True).locator("visible=true").last.locator("xpath=ancestor::*[.//input][1]")


def _choose(tab: Any, label: str, option: str) -> None:
    """In a drop-down list."""
    _row(tab, label).locator("input").first.click()
    tab.get_by_role("option", name=option, exact=True).locator("visible=true").click()


def _press(tab: Any, name: str) -> None:
    tab.get_by_role("button", name=name, exact=True).locator("visible=true").first.click()


def _tone(seconds: float) -> Any:
    from gsth.drive import Sound

    samples = 0.3 * np.sin(np.arange(round(seconds * 16000)) * 0.2)
    return Sound(samples.astype(np.float32), 16000)


def test_the_face_is_seen_soon_and_a_slider_moves_it(page: Page, tab: Any) -> None:
    tab.goto(page.url)
    before = until(lambda: _face(tab), "the face")
    tab.get_by_role("tab", name="Face").click()
    tab.get_by_text("Jaw and tongue", exact=True).click()
    slider = tab.get_by_role("slider").last
    slider.focus()
    slider.press("End")
    until(lambda: bool(page.session.moment().motion.expr[0, 2] == 1.0), "the slider to arrive")
    chin = np.flatnonzero(before.any(1)).max()
    until(lambda: bool(np.flatnonzero(_skin(_shot(tab)).any(1)).max() > chin + 10), "the chin to fall")
    assert "32 splats" in tab.content()
    until(lambda: "Outside of training: jawOpen 1.00 (filmed 0.00 to 0.78)" in tab.content(), "the meter")
    until(lambda: len(tab.url.partition("#")[2]) > 10, "the state in the address")
    tab.mouse.move(*[slider.bounding_box()[k] + 3 for k in ("x", "y")])
    tab.mouse.wheel(0, 120)
    until(lambda: page.session.overrides.get("jawOpen") == pytest.approx(0.99), "the wheel's fine step")


OFF = "Math.abs(gsthPage.sound.currentTime - gsthPage.expected())"


def _long(person: Any, times: int = 150) -> Any:
    """The tracked motion again and again: 60 s of a mouth that opens every 0.4 s."""
    m = person.motion
    return m.replace(
        expr=m.expr.repeat(times, 1), joints=m.joints.repeat(times, 1, 1), T_world_head=m.T_world_head.repeat(times, 1)
    )


def test_speech_sounds_in_step_with_the_pictures(page: Page, person: Any, tab: Any) -> None:
    tab.goto(page.url)
    until(lambda: _face(tab), "the face")
    page.room.panel.drive.add("hello", Playable(_long(person), _tone(60)))
    until(lambda: tab.evaluate("gsthPage.sound.currentTime") > 0.5, "the sound to run")
    until(lambda: tab.evaluate(OFF) < 0.1, "the sound to fall in step")
    chins: set[int] = set()

    def moving() -> bool:
        chins.add(int(np.flatnonzero(_skin(_shot(tab)).any(1)).max()))
        return max(chins) - min(chins) > 10

    before = tab.evaluate("gsthPage.sound.currentTime")
    until(moving, "the mouth to move")
    assert tab.evaluate("gsthPage.sound.currentTime") > before
    tab.keyboard.press("Space")
    until(lambda: tab.evaluate("gsthPage.sound.paused"), "the pause")
    page.session.seek(1000)
    page.session.play()
    until(lambda: tab.evaluate("gsthPage.sound.currentTime") > 39.9, "the sound to be wound")


def test_what_a_browser_takes_to_start_a_sound_is_learned(page: Page, person: Any, chromium: Any) -> None:
    """A browser that lands 0.2 s before where it is wound to is soon wound 0.2 s too far."""
    late = """const real = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "currentTime");
      Object.defineProperty(HTMLMediaElement.prototype, "currentTime",
        { get: real.get, set(to) { real.set.call(this, Math.max(0, to - 0.2)); } });"""
    with _tab(chromium) as tab:
        tab.add_init_script(late)
        tab.goto(page.url)
        until(lambda: _face(tab), "the face")
        page.room.panel.drive.add("hello", Playable(_long(person), _tone(60)))
        until(lambda: tab.evaluate("gsthPage.sound.currentTime") > 0.5, "the sound to run")

        def wound() -> bool:
            page.session.seek(100 + int(page.session.moment().frame + 500) % 1000)
            known = tab.evaluate("gsthPage.lead")
            until(lambda: tab.evaluate("gsthPage.lead") != known, "the sound to settle")
            return tab.evaluate("gsthPage.lead") > 0.13

        until(wound, "the delay to be known")


def test_a_link_with_a_state_opens_in_it(page: Page, tab: Any) -> None:
    tab.goto(f"{page.url}/#{protocol.pack_state({'face': {'jawOpen': 0.5}, 'speed': 2.0})}")
    until(lambda: _face(tab), "the face")
    until(lambda: page.session.overrides == {"jawOpen": 0.5}, "the state")
    assert page.session.transport.speed == 2.0


def test_shortcuts_and_their_help(page: Page, tab: Any) -> None:
    tab.goto(page.url)
    until(lambda: _face(tab), "the face")
    tab.keyboard.press("?")
    assert tab.get_by_text("hold to speak").is_visible()
    tab.keyboard.press("Escape")
    assert not tab.get_by_text("hold to speak").is_visible()
    tab.keyboard.press("v")
    until(lambda: page.session.style.mode == "alpha", "the next kind of picture")
    tab.keyboard.press("]")
    until(lambda: page.session.transport.speed == 1.25, "the speed")


def test_a_recording_is_downloaded_and_its_sound_fits_its_pictures(
    page: Page, person: Any, tab: Any, tmp_path: Path
) -> None:
    """The mouth is open, and the tone sounds, from 1.0 to 1.4 s of a motion of 2 s."""
    from gsth import media
    from gsth.drive import Sound

    tab.goto(page.url)
    until(lambda: _face(tab), "the face")
    motion = _long(person, 5)
    motion.expr[:, 2] = 0.0
    motion.expr[25:35, 2] = 1.0
    samples = np.zeros(2 * 16000, np.float32)
    samples[16000:22400] = 0.5 * np.sin(np.arange(6400) * 0.2)
    page.session.load(motion, sound=Sound(samples, 16000))
    page.session.play()
    tab.keyboard.press("r")
    take = until(lambda: next(iter(page.room.panel.save._recorders.values()), None), "the recording to begin").take
    until(lambda: len(take.shots) > 55, "a whole turn of the motion")
    with tab.expect_download(timeout=90_000) as download:
        tab.keyboard.press("r")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    clip = media.probe(path)
    area = np.array([_skin(f.astype(int)).sum() for f in media.frames(clip)])
    opened = area > (area.min() + area.max()) / 2
    sound = media.sound(path, 16000)
    loud = np.array([np.abs(p).max() > 0.1 for p in np.array_split(sound, len(area))])
    assert 5 < opened.sum() < len(opened) - 5
    lags = range(-8, 9)
    fits = [np.mean(opened[8:-8] == np.roll(loud, lag)[8:-8]) for lag in lags]
    assert abs(lags[int(np.argmax(fits))]) <= 1 and max(fits) > 0.9


def test_two_visitors_have_two_cameras_and_come_back_after_a_restart(person: Any, chromium: Any) -> None:
    with Page(person, ViewConfig(port=0)) as page:
        port = int(page.url.rsplit(":", 1)[1])
        one, two = (chromium.new_page(viewport={"width": 700, "height": 400}) for _ in range(2))
        one.goto(page.url)
        two.goto(page.url)
        until(lambda: len(page._rooms) == 2, "both visitors")
        until(lambda: _face(one), "the face")
        _orbit(one)
        orbits = lambda: [v.view.orbit for v in page.room._visitors.values()]  # noqa: E731
        home = page.room.optics.is_home
        until(lambda: sorted(map(home, orbits())) == [False, True], "one to turn away")
        two.close()
    until(lambda: "connection lost" in one.inner_text("#gsth-status"), "the loss to be told")
    with Page(person, ViewConfig(port=port)) as page:
        until(lambda: page._rooms, "the page to come back")
        until(lambda: one.inner_text("#gsth-status") == "", "the end of the trouble")
        # It loads itself anew for another server, so its first visit may be a short one.
        visitors = page.room._visitors
        until(lambda: any(v.view._sent for v in tuple(visitors.values())), "a picture for it")
        one.close()


def test_the_first_view_is_the_videos_and_turning_leaves_it(page: Page, person: Any, tab: Any) -> None:
    from gsth import render

    tab.goto(page.url)
    until(lambda: _face(tab), "the face")
    want = render.render(person.pose(person.motion[0]), person.cameras, background=person.plate)
    rows, columns = (np.flatnonzero(_skin(want.rgb[0].numpy() * 255).any(axis)) for axis in (1, 0))

    def in_place() -> bool:
        """Once the page has its size: the first picture may be for another one."""
        if (skin := _face(tab)) is None:
            return False
        got_rows, got_columns = (np.flatnonzero(skin.any(axis)) for axis in (1, 0))
        canvas = tab.locator("canvas").first.bounding_box()
        scale = min(canvas["width"], canvas["height"]) / 96
        x0, y0 = canvas["x"] + (canvas["width"] - 96 * scale) / 2, canvas["y"] + (canvas["height"] - 96 * scale) / 2
        high = got_rows.min() == pytest.approx(y0 + rows.min() * scale, abs=2 * scale)
        return bool(high and got_columns.min() == pytest.approx(x0 + columns.min() * scale, abs=2 * scale))

    until(in_place, "the face where the video has it")


def test_the_view_tab_reaches_session_and_camera(page: Page, tab: Any, tmp_path: Path) -> None:
    from gsth import media

    tab.goto(page.url)
    until(lambda: _face(tab), "the face")
    tab.get_by_role("tab", name="View").click()
    for label, option, field in (
        ("show", "depth", "mode"),
        ("show", "rgb", "mode"),
        ("on top", "mesh", "overlay"),
        ("behind", "green", "background"),
        ("height, px", "256", "max_height"),
    ):
        _choose(tab, label, option)
        until(lambda f=field, o=option: str(getattr(page.session.style, f)) == o, f"{label} {option}")
    _choose(tab, "compare with", "avatar")
    tab.get_by_text("start with: gsth view A --against B").wait_for()
    assert page.session.style.compare == "none"
    view = next(iter(page.room._visitors.values())).view
    _choose(tab, "side", "left")
    until(lambda: not page.room.optics.is_home(view.orbit), "the camera to go")
    _press(tab, "Training view")
    until(lambda: page.room.optics.is_home(view.orbit), "the camera to come home")
    media.write_image(tmp_path / "sky.png", np.full((20, 30, 3), 90, np.uint8))
    with tab.expect_file_chooser() as chooser:
        _press(tab, "Choose an image")
    chooser.value.set_files(tmp_path / "sky.png")
    until(lambda: page.session.style.background == "image", "the image")


def test_head_gaze_and_mirrored_expressions(page: Page, tab: Any) -> None:
    tab.goto(page.url)
    until(lambda: _face(tab), "the face")
    tab.get_by_role("tab", name="Face").click()
    tab.get_by_text("Mouth", exact=True).click()
    _row(tab, "mouthSmileLeft").get_by_role("slider").press("End")
    both = {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0}
    until(lambda: page.session.overrides == both, "both sides")
    _press(tab, "Reset all")
    until(lambda: page.session.overrides == {}, "the reset")
    tab.get_by_text("Mouth", exact=True).click()
    tab.get_by_text("Gaze, head, neck", exact=True).click()
    _row(tab, "head yaw").get_by_role("slider").press("End")
    until(lambda: page.session.turns.get("head") == (40.0, 0.0, 0.0), "the head to turn")
    tab.get_by_label("eyes follow the camera").click()
    until(lambda: page.session.gaze_follows, "the gaze to follow")
    there = page.session._target
    _orbit(tab)
    until(lambda: page.session._target != there, "the eyes to follow")
    _press(tab, "Reset")
    until(lambda: not page.session.gaze_follows and page.session.turns["head"] == (0.0, 0.0, 0.0), "all straight")


def _orbit(tab: Any) -> None:
    """Drag the picture."""
    tab.mouse.move(100, 250)
    tab.mouse.down()
    tab.mouse.move(260, 250, steps=5)
    tab.mouse.up()


def test_stills_paths_and_exports_are_downloaded(page: Page, tab: Any, tmp_path: Path) -> None:
    from gsth import media

    def given(button: str) -> Path:
        with tab.expect_download(timeout=90_000) as download:
            _press(tab, button)
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    tab.goto(page.url)
    until(lambda: _face(tab), "the face")
    tab.get_by_role("tab", name="Save").click()
    assert media.read_image(given("Picture (png)")).shape[0] == 512
    tab.get_by_text("Camera path", exact=True).click()
    for count in (1, 2):
        _press(tab, "Add this view")
        tab.get_by_text(f"{count} keys").wait_for()
        _orbit(tab)
    assert media.probe(given("Film the motion along it")).frames == 10
    _choose(tab, "format", "splat")
    assert given("Export").stat().st_size == 32 * 32  # as many splats, of as many bytes


def test_a_file_is_chosen_for_a_driver_and_the_microphone_is_heard(page: Page, tab: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "wave.npz", expr=np.full((7, 1), 0.5), names=np.array(["jawOpen"]), fps=25.0)
    tab.goto(page.url)
    until(lambda: _face(tab), "the face")
    tab.get_by_text("Motion", exact=True).click()
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Choose a file").locator("visible=true").nth(1).click()
    status = tab.locator("#gsth-status")
    free, drive = threading.Event(), page.room.panel.drive
    add = drive.add
    drive.add = lambda title, playable: (free.wait(90), add(title, playable))
    chooser.value.set_files(tmp_path / "wave.npz")
    until(lambda: status.inner_text() == "working on wave.npz", "the page to say what it waits for")
    free.set()
    until(lambda: drive.motion.value == "wave.npz", "the motion")
    until(lambda: status.inner_text() == "", "the end of the wait")
    assert page.session.frames == 7

    given: list[tuple[str, bytes]] = []
    heard: list[np.ndarray] = []
    hushed: list[bool] = []
    drive.give = lambda purpose, name, path: given.append((purpose, path.read_bytes()[:4]))
    drive.hear, drive.hush = heard.append, lambda: hushed.append(True)
    talk = tab.get_by_role("button", name="Hold to speak")
    talk.dispatch_event("pointerdown")
    until(lambda: "on" in (talk.get_attribute("class") or ""), "the microphone to open")
    tab.wait_for_timeout(300)  # of speech
    talk.dispatch_event("pointerup")
    until(lambda: given == [("speech", bytes.fromhex("1a45dfa3"))], "what was said, as webm")
    live = tab.get_by_role("button", name="follows the microphone")
    live.click()
    until(lambda: sum(map(len, heard)) > 16_000, "a second of sound")
    assert max(np.abs(piece).max() for piece in heard) <= 1.0
    live.click()
    until(lambda: hushed, "the end of it")


def test_the_browser_draws_for_itself(page: Page, tab: Any) -> None:
    tab.goto(page.url)
    before = until(lambda: _face(tab), "the face")
    view = next(iter(page.room._visitors.values())).view
    tab.get_by_role("tab", name="View").click()
    _press(tab, "Draw in this browser")
    until(lambda: tab.evaluate("document.querySelector('#gsth-player')?.contentWindow?.player != null"), "the player")
    until(lambda: view.asleep, "the server to rest")
    until(lambda: _face(tab), "the player's face")
    chin = lambda: int(np.flatnonzero(_skin(_shot(tab)).any(1)).max())  # noqa: E731
    closed = chin()
    page.session.express("jawOpen", 1.0)
    until(lambda: chin() > closed + 10, "the player's chin to fall")
    _press(tab, "Draw in this browser")
    until(lambda: not view.asleep, "the server to draw again")
    assert tab.locator("#gsth-player").count() == 0 and before.any()


def test_a_phone_shows_picture_and_panel_one_above_the_other(page: Page, chromium: Any) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with _tab(chromium, **phone) as tab:
        tab.goto(page.url)
        until(lambda: _face(tab), "the face")
        canvas = tab.locator("canvas").first
        until(lambda: canvas.bounding_box()["height"] < 500, "the canvas to take its place")
        picture = canvas.bounding_box()
        panel = tab.get_by_role("tab", name="Drive").locator("xpath=ancestor::*[contains(@style, 'fixed')]")
        sheet, bar = panel.bounding_box(), tab.locator("#gsth-bar").bounding_box()
        assert picture["width"] == sheet["width"] == 390
        assert picture["height"] > 400 and sheet["height"] > 300
        assert picture["y"] + picture["height"] <= sheet["y"] + 1
        assert bar["y"] + bar["height"] <= sheet["y"] and bar["x"] + bar["width"] <= 390
        tab.locator("#gsth-bar button").first.tap()
        until(lambda: page.session.transport.playing, "it to play")


def test_dark_and_light_follow_the_reader_and_a_key(page: Page, chromium: Any) -> None:
    scheme = "document.documentElement.dataset.mantineColorScheme"
    with _tab(chromium, color_scheme="light") as tab:
        tab.goto(page.url)
        until(lambda: tab.evaluate(scheme) == "light", "light")
        tab.keyboard.press("t")
        until(lambda: tab.evaluate(scheme) == "dark", "dark")


def test_a_guest_with_the_link_has_an_avatar_of_their_own(person: Any, chromium: Any) -> None:
    with Page(person, ViewConfig(port=0, host="0.0.0.0", own=True)) as page:
        port = int(page.url.split(":")[2].split("/")[0])
        with _tab(chromium) as one, _tab(chromium) as two:
            for tab in (one, two):
                tab.goto(f"http://127.0.0.1:{port}/?token={page.token}")
                until(lambda tab=tab: _face(tab), "the face")
                assert "token" not in tab.url
            until(lambda: len(page._rooms) == 2, "both guests")
            one.keyboard.press("v")
            modes = lambda: sorted(room.session.style.mode for room in page._rooms.values())  # noqa: E731
            until(lambda: modes() == ["alpha", "rgb"], "one of them to look otherwise")


def test_training_is_watched_and_stopped_from_the_page(person: Any, chromium: Any, tmp_path: Path) -> None:
    from gsth.serve.watch import watched
    from gsth.types import Event, Formed, Notice, Step

    ended, said = threading.Event(), []

    def training() -> Iterator[Event]:
        try:
            for step in itertools.count(10, 10):
                yield Step("train", step, 100_000, {"loss": 1 / step, "psnr_db": 20.0})
                yield Formed(step, lambda: person)
                if ended.wait(0.05):
                    return
        finally:
            ended.set()

    def run() -> None:
        for event in watched(training(), tmp_path / "a", tmp_path / "w", ViewConfig(port=0)):
            if isinstance(event, Notice):
                said.append(event.text)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        url = until(lambda: said, "the page")[0].rsplit(" ", 1)[1]
        with _tab(chromium) as tab:
            tab.goto(url)
            until(lambda: _face(tab), "the face")
            tab.get_by_role("tab", name="Training").click()
            tab.get_by_text("of 100000, loss").wait_for()
            until(lambda: tab.locator(".uplot canvas").count() == 2, "two curves")
            _press(tab, "Stop the run")
            until(ended.is_set, "the run to end")
    finally:
        ended.set()
        thread.join(60)
    assert "stopped from the viewer" in said[-1]
