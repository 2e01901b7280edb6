"""The lens that a film tells of: tags of the file, as FFmpeg writes them, and of the track, where phones put them."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gsth import media
from gsth.errors import InputError
from gsth.track import TrackConfig, _lens
from gsth.types import Clip, Notice

FOCAL = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
MODEL = "com.apple.quicktime.camera.lens_model"
SHAPE = (60, 80, 3)
DIAGONAL = 100.0


def filmed(path: Path, tags: dict[str, str] | None = None) -> Clip:
    media.write_video(path, [np.full(SHAPE, 40 * i, np.uint8) for i in range(2)], 25, tags=tags)
    return media.probe(path)


def atom(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def meta(items: dict[str, tuple[int, bytes]], version: bytes = b"") -> bytes:
    """Tags as phones write them, Apple's QuickTime File Format: each value with its type; MP4 adds a version."""
    keys = b"".join(atom(b"mdta", key.encode()) for key in items)
    values = b"".join(
        atom(struct.pack(">I", i + 1), atom(b"data", struct.pack(">II", kind, 0) + raw))
        for i, (kind, raw) in enumerate(items.values())
    )
    handler = atom(b"hdlr", bytes(8) + b"mdta" + bytes(13))
    return atom(
        b"meta", version + handler + atom(b"keys", struct.pack(">II", 0, len(items)) + keys) + atom(b"ilst", values)
    )


def with_track_tags(path: Path, extra: bytes) -> Clip:
    """A film whose first track carries ``extra`` at its end."""
    filmed(path)
    raw = path.read_bytes()
    moov = raw.index(b"moov") - 4
    trak = raw.index(b"trak", moov) - 4
    assert moov > raw.index(b"mdat")  # no offset of samples moves
    sizes = [int.from_bytes(raw[at : at + 4], "big") for at in (moov, trak)]
    end = trak + sizes[1]
    grown = [struct.pack(">I", size + len(extra)) for size in sizes]
    path.write_bytes(raw[:moov] + grown[0] + raw[moov + 4 : trak] + grown[1] + raw[trak + 4 : end] + extra + raw[end:])
    return media.probe(path)


def asked(clip: Clip, **choices: object) -> tuple[float | None, list[str]]:
    """The focal length that tracking takes, and its Notices."""
    texts, going = [], _lens.known(clip, TrackConfig(**choices))  # pyright: ignore[reportArgumentType]
    try:
        while True:
            texts.append(next(going).text)
    except StopIteration as end:
        return end.value, texts


def test_a_phones_film_tells_its_lens(tmp_path: Path) -> None:
    lens = b"iPhone 13 back camera 5.1mm f/1.6"
    clip = with_track_tags(tmp_path / "v.mp4", meta({MODEL: (1, lens), FOCAL: (21, struct.pack(">i", 27))}))
    focal, texts = asked(clip)
    assert focal == pytest.approx(27 / 43.2666 * DIAGONAL, rel=1e-5)
    assert len(texts) == 1 and lens.decode() in texts[0] and "62 px" in texts[0]
    assert asked(clip, focal_px=900.0) == (900.0, [])
    assert asked(clip, film_lens=False) == (None, [])


@pytest.mark.parametrize(
    ("kind", "raw"),
    [(1, b"50.00mm"), (1, b"50"), (23, struct.pack(">f", 50)), (24, struct.pack(">d", 50)), (77, b"\0\0\0\x32")],
)
def test_every_type_of_value_is_read(tmp_path: Path, kind: int, raw: bytes) -> None:
    told = _lens.told(with_track_tags(tmp_path / "v.mp4", meta({FOCAL: (kind, raw)})))
    assert told is not None and told.focal_px == pytest.approx(50 / 43.2666 * DIAGONAL, rel=1e-5)


def test_mp4s_own_layout_is_read(tmp_path: Path) -> None:
    told = _lens.told(with_track_tags(tmp_path / "v.mp4", meta({FOCAL: (1, b"50")}, bytes(4))))
    assert told is not None and told.focal_px == pytest.approx(50 / 43.2666 * DIAGONAL, rel=1e-5)


@pytest.mark.parametrize("key", [FOCAL, "my.camera.FocalLengthIn35mmFilm"])
def test_tags_of_the_file_are_read(tmp_path: Path, key: str) -> None:
    focal, texts = asked(filmed(tmp_path / "v.mp4", {key: "35"}))
    assert focal == pytest.approx(35 / 43.2666 * DIAGONAL, rel=1e-5) and len(texts) == 1


def test_a_film_without_tags_tells_nothing(tmp_path: Path) -> None:
    assert asked(filmed(tmp_path / "v.mp4", {"comment": "a focal length"})) == (None, [])


@pytest.mark.parametrize("said", ["0", "-27", "1e9", "nan", "long", "27 cm", "2.7.1", "."])
def test_nonsense_is_ignored_and_said(tmp_path: Path, said: str) -> None:
    focal, texts = asked(filmed(tmp_path / "v.mp4", {FOCAL: said}))
    assert focal is None
    assert len(texts) == 1 and repr(said) in texts[0] and "ignored" in texts[0]


def test_damaged_tags_are_nobodys_lens(tmp_path: Path) -> None:
    whole, path = meta({FOCAL: (1, b"50")}), tmp_path / "v.mp4"
    filmed(path)
    raw = path.read_bytes()
    for name, extra in {
        "cut": whole[:-3],
        "no keys": whole.replace(b"keys", b"sqez"),
        "key out of range": whole.replace(b"ilst" + struct.pack(">II", 26, 1), b"ilst" + struct.pack(">II", 26, 9)),
        "endless": whole.replace(struct.pack(">I4s", 26, b"\0\0\0\1"), struct.pack(">I4s", 2**31, b"\0\0\0\1")),
        "unknown type": meta({FOCAL: (14, b"50")}),
    }.items():
        assert extra != whole, name
        # beside a moov of its own, so that FFmpeg's own reading stays out of it
        path.write_bytes(raw + atom(b"moov", atom(b"trak", extra)))
        assert _lens.told(SimpleNamespace(path=path, width=80, height=60)) is None, name  # pyright: ignore
    path.write_bytes(raw + atom(b"moov", atom(b"trak", whole)))
    assert _lens.told(SimpleNamespace(path=path, width=80, height=60)) is not None  # pyright: ignore


def test_the_notice_reaches_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gsth.track import _landmarks, _preflight, _track

    clip = filmed(tmp_path / "v.mp4", {FOCAL: "35"})
    monkeypatch.setattr(_landmarks, "glance", lambda *_: SimpleNamespace(found=np.ones(2, bool)))
    monkeypatch.setattr(_preflight, "judge", lambda *_: iter(()))
    notices = [e.text for e in _track.check(clip.path) if isinstance(e, Notice)]
    assert any("film's own tags" in text for text in notices)


def test_tags_of_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_text("no film")
    with pytest.raises(InputError, match="cannot be decoded"):
        media.tags(tmp_path / "v.mp4")
