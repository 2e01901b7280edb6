"""Names and texts that somebody chose stay text in every page that gsth writes: they never become elements."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import small_work

from gsth import _batch_report
from gsth._batch_report import Record
from gsth.evaluate import _html
from gsth.evaluate._exam import Results
from gsth.export import web
from gsth.types import Track

ROOT = Path(__file__).resolve().parents[1]
HARMLESS = "anna"
EVIL = (
    "<script>alert(1)</script>",
    "</title></script></style><script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "' onmouseover='alert(1)",
    "<!-- <b>&lt;b&gt; &amp; {{player}} \\1 \\g<0>",
    "javascript:alert(1)",
)


class Skeleton(HTMLParser):
    """A page without its words: its elements with the names of their attributes, and where their addresses lead."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.bones: list[tuple[str, ...]] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.bones.append((tag, *sorted(name for name, _ in attrs)))
        self.words += " ".join(value or "" for _, value in attrs)
        scheme = [
            value for name, value in attrs if name in ("href", "src") and re.match(r"\s*javascript:", value or "")
        ]
        assert not scheme, f"{tag} leads to {scheme[0]}"

    def handle_endtag(self, tag: str) -> None:
        self.bones.append((f"/{tag}",))

    def handle_comment(self, data: str) -> None:
        self.bones.append(("comment",))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return small_work.track(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def track_report(track: Track, tmp_path: Path) -> Callable[[str], str]:
    """The clip's name; advice and reasons, which may repeat it; names of expressions and shapes, as a head has them."""
    quality = pytest.importorskip("gsth.track._quality", reason="needs the extra 'track'")
    report = pytest.importorskip("gsth.track._report", reason="needs the extra 'track'")
    (tmp_path / "overlay.mp4").touch()

    def page(text: str) -> str:
        # a file's name holds no slash, but a Path made of one keeps what follows it
        named = track.replace(clip=dataclasses.replace(track.clip, path=Path("clips") / text))
        seen = quality.Quality(
            figures={"error_pct": 1.0},
            bad=(quality.BadFrame(3, text),),
            shapes={text: 1},
            poses=np.zeros((len(quality.PITCH_EDGES_DEG) + 1, len(quality.YAW_EDGES_DEG) + 1), int),
            activity={text: (0.1, 0.9)},
            verdict="poor",
            advice=(text,),
        )
        fitted = SimpleNamespace(focal=100.0)
        return "".join(report._page(named, fitted, seen, 8, ([track.images[0]], tmp_path / "overlay.mp4")))

    return page


@pytest.fixture
def evaluation() -> Callable[[str], str]:
    """The avatar's name, its folder, rows and curves named after avatars, and why something was not measured."""

    def page(text: str) -> str:
        results = Results(
            rows={"avatar": {"psnr_db": 20.0}, text: {"psnr_db": 30.0}},
            absent={"lips_pct_iod": text},
            frames=[1, 2],
            series={f"{text}|{text}": [1.0, 2.0]},
        )
        return _html.page(results, {"avatar": text, text: "consent"}, f"{text}, scored")

    return page


@pytest.fixture
def batch(tmp_path: Path) -> Callable[[str], str]:
    """The identity's name, its clip, the reason of its refusal, and its machine."""

    def page(text: str) -> str:
        refused = Record(text, f"clips/{text}.mp4", "key", _batch_report.REFUSED, text, text)
        return _batch_report.write(tmp_path, [refused], ["track"]).read_text()

    return page


@pytest.fixture
def web_page() -> Callable[[str], str]:
    """The title that the user gave; it is all that the page says outside the avatar's binary."""

    def page(text: str) -> str:
        return web.WebExporter(web.Config(title=text))._page('<script src="player.js"></script>', web.BIN, None)

    return page


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("maker", ["track_report", "evaluation", "batch", "web_page"])
def test_what_somebody_named_stays_text(maker: str, text: str, request: pytest.FixtureRequest) -> None:
    """Outcome: the page has the same elements and attributes as with a harmless name, and shows the name itself."""
    page: Callable[[str], str] = request.getfixturevalue(maker)
    evil, harmless = Skeleton(page(text)), Skeleton(page(HARMLESS))
    assert evil.bones == harmless.bones
    assert text.rsplit("/", 1)[-1] in evil.words


def test_a_page_that_does_not_escape_would_be_seen() -> None:
    for text in EVIL[:4]:
        bones = Skeleton(f"<p title='{text}'>{text}</p>").bones
        assert bones != Skeleton(f"<p title='{HARMLESS}'>{HARMLESS}</p>").bones, text
    with pytest.raises(AssertionError, match="leads to"):
        Skeleton(f"<a href='{EVIL[5]}'>x</a>")


@pytest.mark.parametrize("colour", ["red;} body{}", "#12345", "</style>", "#2a2d33\n"])
def test_the_pages_colour_is_a_colour(colour: str) -> None:
    with pytest.raises(web.InputError, match="want a colour"):
        web.Config(background=colour)


def test_scripts_build_no_elements_from_text() -> None:
    """Player and viewer show names by textContent; viser's markdown and html hold figures of ours alone."""
    sources = [*ROOT.glob("viewer/src/*.ts"), *ROOT.glob("gsth/serve/**/*.js"), *ROOT.glob("gsth/serve/*.py")]
    assert len(sources) > 20
    maker = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\(|new Function")
    assert [f"{p.name}: {m.group()}" for p in sources for m in maker.finditer(p.read_text())] == []
    html = [c for p in sources for c in re.findall(r"add_html\((.*)\)", p.read_text())]
    assert [re.findall(r"\{(.*?)\}", c) for c in html] == [["client.client_id"]]
    markdown = [c for p in sources for c in re.findall(r"add_markdown\((.*)\)", p.read_text())]
    assert all(re.fullmatch(r'"[a-z ]*"', c) for c in markdown), markdown


def test_consent_and_names_in_the_avatars_binary_cannot_end_its_element() -> None:
    """A single file holds the avatar, with the consent's text, in base64: no character of markup is in it."""
    packed = json.dumps({"consent": EVIL[1]}).encode()
    page = web.WebExporter(web.Config())._page("<script></script>", web._data(web._BINARY, packed), None)
    assert Skeleton(page).bones == Skeleton(web.WebExporter(web.Config())._page("<script></script>", "x", None)).bones
    assert web.avatar_in(page.encode(), Path("a.html")) == packed
