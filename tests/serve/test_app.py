from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from watching import until

from gsth.errors import GsthError, InputError
from gsth.serve import _panel_face, _sources, app, protocol
from gsth.serve.app import Page, ViewConfig
from gsth.types import Done, Formed, Notice, Saved, Step

pytest.importorskip("viser", reason="viser is absent: pip install 'gsth[viewer]'")


@pytest.fixture
def page(person: Any) -> Iterator[Page]:
    with Page(person, ViewConfig(port=0)) as page:
        yield page


def test_the_page_is_served_and_its_port_is_free_again_afterwards(person: Any, capsys: pytest.CaptureFixture) -> None:
    with Page(person, ViewConfig(port=0)) as page:
        port = int(page.url.rsplit(":", 1)[1])
        assert urllib.request.urlopen(page.url, timeout=60).status == 200
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


def test_a_notebook_shows_the_page_and_reaches_every_control(person: Any, tmp_path: Path) -> None:
    import gsth

    folder = tmp_path / "me.avatar"
    person.save(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gsth.avatar._avatar._head", lambda *_: person.head)
        page = gsth.view(folder)
    try:
        assert f'<iframe src="{page.url}"' in page._repr_html_() and 'allow="microphone"' in page._repr_html_()
        assert urllib.request.urlopen(page.url, timeout=60).status == 200
        page.session.express("jawOpen", 0.6)
        page.room.panel.drive.play("idle")
        page.room.panel.look.next_mode()
        assert (page.session.frames, page.session.style.mode) == (25 * 120, "alpha")
    finally:
        page.stop()
    with pytest.raises(OSError):
        urllib.request.urlopen(page.url, timeout=60)


def test_own_avatars_have_no_shared_session(person: Any) -> None:
    with Page(person, ViewConfig(port=0, own=True)) as page, pytest.raises(InputError, match="without own=True"):
        _ = page.session


def test_expressions_are_grouped_once_each() -> None:
    names = ("browInnerUp", "jawOpen", "mouthClose", "expr_3", "tongueOut")
    assert _panel_face.grouped(names) == {
        "Brows": ["browInnerUp"],
        "Jaw and tongue": ["jawOpen", "tongueOut"],
        "Mouth": ["mouthClose"],
        "Other": ["expr_3"],
    }


def test_sides_are_paired() -> None:
    names = ("mouthSmileLeft", "mouthSmileRight", "jawLeft", "jawOpen")
    assert _panel_face.mirror_of("mouthSmileLeft", names) == "mouthSmileRight"
    assert _panel_face.mirror_of("mouthSmileRight", names) == "mouthSmileLeft"
    assert _panel_face.mirror_of("jawLeft", names) is None
    assert _panel_face.mirror_of("jawOpen", names) is None


def test_every_expression_has_a_slider_that_follows_the_session(page: Page, person: Any) -> None:
    sliders = page.room.panel.face.sliders
    assert sorted(sliders) == sorted(person.head.expression_names)
    page.session.express("jawOpen", 0.4)
    page.session.turn("head", 10, -5)
    until(lambda: sliders["jawOpen"].value == 0.4, "the slider")
    until(lambda: page.room.panel.face.turns["head"]["pitch"].value == -5, "the turn")


def test_all_drivers_that_start_from_one_thing_are_there() -> None:
    from gsth import registry

    found = _sources.sources()
    assert {"audio", "text", "motion", "video", "webcam"} <= set(found)
    assert "script" in registry.names("drive") or "script" not in found
    assert {n: s.wants and (s.wants.name, s.wants.kind) for n, s in found.items()}["text"] == ("text", "text")
    assert found["webcam"].wants is None


def test_a_motion_file_is_played(page: Page, person: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez(path, expr=np.full((7, 1), 0.5), names=np.array(["jawOpen"]), fps=25.0)
    page.room.given("wave.npz", "", path)
    assert page.session.frames == 7 and page.session.transport.playing
    assert float(page.session.moment().motion.expr[0, 2]) == 0.5
    assert page.room.panel.drive.motion.value == "wave.npz"
    page.room.panel.drive.play("tracked clip")
    assert page.session.tracked


@pytest.mark.parametrize("name", ["m.npz", "m.csv", "m.json", "x.wav", "x.png", "x.mp4"])
def test_files_of_noise_are_refused_with_a_reason(page: Page, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(GsthError):
        page.room.given(name, "", path)
    assert page.session.tracked


def test_the_idle_motion_lives(page: Page) -> None:
    page.room.panel.drive.play("idle")
    assert page.session.frames == 25 * 120 and page.session.transport.loop
    assert float(page.session._motion.expr[:, 1].max()) > 0.5  # it blinks


def test_only_so_many_motions_are_kept(page: Page, person: Any) -> None:
    from gsth.serve._panel_drive import IDLE, MOST, TRACKED, Playable

    for i in range(MOST + 5):
        page.room.panel.drive.add(f"m{i}", Playable(person.motion[:2]))
    kept = page.room.panel.drive.motion.options
    assert kept[:2] == (TRACKED, IDLE) and kept[-1] == f"m{MOST + 4}" and len(kept) == MOST


def test_presets_are_put_on_and_off(page: Page) -> None:
    face = page.room.panel.face
    assert face._presets
    name, values = next(iter(face._presets.items()))
    face.put_on(name)
    assert page.session.overrides == values
    face.put_on("as driven")
    assert page.session.overrides == {}


def test_a_state_goes_into_the_address_and_back(page: Page, person: Any) -> None:
    from types import SimpleNamespace

    here = SimpleNamespace(view=SimpleNamespace(orbit=page.room.optics.beside(30)))
    page.session.express("jawOpen", 0.3)
    page.session.turn("gaze", 10, 5)
    page.session.set_speed(0.5)
    packed = protocol.pack_state(page.room.state(here))
    page.session.reset()
    page.session.set_speed(1.0)
    assert "camera" not in page.room.state(SimpleNamespace(view=SimpleNamespace(orbit=page.room.optics.home(1, 1))))
    page.room.restore(protocol.unpack_state(packed))
    assert page.session.overrides == {"jawOpen": 0.3} and page.session.turns["gaze"] == (10, 5, 0)
    assert page.session.transport.speed == 0.5


@pytest.mark.parametrize(
    "state",
    [
        {"face": {"jawOpen": "x"}},
        {"face": {"nose": 1}},
        {"face": [1]},
        {"turns": {"head": [1, 2]}},
        {"turns": {"head": [1, 2, None]}},
        {"turns": {"torso": [1, 2, 3]}},
        {"looks": {"mode": "x"}},
        {"looks": {"mode": 3}},
        {"looks": {"shell": "rm"}},
        {"looks": {"split": "left"}},
        {"looks": {"max_height": True}},
        {"looks": {"background": ["a"]}},
        {"speed": "fast"},
        {"speed": 1e999},
        {"camera": [1, 2]},
        {"camera": [1, 2, 3, float("nan")]},
    ],
)
def test_a_broken_state_is_refused_and_changes_nothing(page: Page, state: dict) -> None:
    version = page.session.version
    with pytest.raises(InputError):
        page.room.restore(state)
    assert page.session.version == version


def test_another_head_to_compare_with_is_refused(person: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import dataclasses

    from gsth.avatar import Avatar

    strange = dataclasses.replace(person.head, id=dataclasses.replace(person.head.id, digest="f" * 16))
    monkeypatch.setattr(Avatar, "load", lambda path: dataclasses.replace(person, head=strange))
    with pytest.raises(InputError, match="stands on head"):
        Page(person, ViewConfig(port=0, against=tmp_path))


def test_other_machines_need_the_token(person: Any) -> None:
    with Page(person, ViewConfig(port=0, host="0.0.0.0")) as page:
        assert page.token is not None and f"?token={page.token}" in page.url
        port = int(page.url.split(":")[2].split("/")[0])
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert opener.open(f"http://127.0.0.1:{port}/?token={page.token}", timeout=60).status == 200


@pytest.mark.parametrize("name", ["ply", "splat", "spz", "web"])
def test_what_is_exported_is_a_file_or_folder(page: Page, tmp_path: Path, name: str) -> None:
    out = page.room.panel.save.exported(name, tmp_path)
    assert out.parent == tmp_path and out.exists()


def test_training_is_watched_kept_branched_and_stopped(
    person: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gsth.serve import watch

    closed, out, work = [], tmp_path / "me.avatar", tmp_path / "me.avatar.work"
    work.mkdir()
    (work / "checkpoint").write_text("x")

    def training() -> Iterator[Any]:
        try:
            for step in range(20, 2000, 20):
                yield Step("train", step, 2000, {"loss": 1 / step, "psnr_db": step / 100})
                yield Formed(step, lambda: person)
        finally:
            closed.append(True)

    seen: list[Any] = []
    original = watch.Desk.stepped

    def stepped(desk: Any, step: Step) -> None:
        too_soon = step.done == 60
        monkeypatch.setattr(watch, "_CURVES_S", 1e9 if too_soon else 0.0)
        original(desk, step)
        shown = 40 if too_soon else step.done
        steps, losses = desk.loss.data
        assert steps[-1] == shown and losses[-1] == pytest.approx(1 / shown)
        assert len(steps) == shown / 20 - 1 and f"step {shown} of 2000" in desk.text.content
        if step.done == 100:
            person_kept = desk.keep()
            assert person_kept.name == "me-step80.avatar"
            desk.branch()
        if step.done == 140:
            desk.stopped.set()

    watch.Desk.stepped = stepped  # type: ignore[method-assign]
    try:
        seen = list(watch.watched(training(), out, work, ViewConfig(port=0)))
    finally:
        watch.Desk.stepped = original  # type: ignore[method-assign]
    assert closed == [True]
    assert sum(isinstance(e, Step) for e in seen) == 7
    assert [e.path.name for e in seen if isinstance(e, Saved)] == ["me-step80.avatar"]
    assert (tmp_path / "me-step80.avatar" / "meta.json").exists()
    assert (tmp_path / "me-branch80.avatar.work" / "checkpoint").read_text() == "x"
    texts = [e.text for e in seen if isinstance(e, Notice)]
    assert "http://127.0.0.1:" in texts[0] and "me-branch80.avatar" in texts[1] and "stopped" in texts[2]


def test_training_goes_on_where_the_viewer_cannot(person: Any, tmp_path: Path) -> None:
    from gsth.serve import watch

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        config = ViewConfig(port=other.getsockname()[1])
        events = iter([Formed(1, lambda: person), Formed(2, lambda: person), Done(tmp_path)])
        seen = list(watch.watched(events, tmp_path / "a", tmp_path / "w", config))
    assert isinstance(seen[0], Notice) and "training goes on without" in seen[0].text
    assert [type(e) for e in seen[1:]] == [Formed, Done]
