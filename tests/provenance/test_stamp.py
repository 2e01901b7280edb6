"""Pictures and videos as they leave gsth, and what ``verify`` reads back from them."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gsth import artifacts, media, provenance
from gsth.errors import InputError, MissingExtraError
from gsth.provenance import STAMPED, StampConfig, _credentials

pytest.importorskip("c2pa", reason="needs the extra 'trust'")

WHO = provenance.About(0x12345678, ("synthetic",))
SILENT = (None, 16000)


@pytest.fixture
def video(picture: np.ndarray, tmp_path: Path) -> Path:
    out = tmp_path / "a.mp4"
    provenance.write_video(out, [picture[:256, :320]] * 5, 25, SILENT, WHO, STAMPED)
    return out


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_picture_says_where_it_comes_from(picture: np.ndarray, tmp_path: Path, name: str) -> None:
    provenance.write_image(tmp_path / name, picture, WHO, STAMPED)
    credentials, mark, note = provenance.verify(tmp_path / name)
    assert "intact; AI-generated, made by gsth" in credentials and "consent: synthetic" in credentials
    assert mark == "watermark: made by gsth from avatar 12345678"
    assert note.endswith("avatar 12345678; label off; watermark on; credentials on")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_video_says_where_it_comes_from_and_plays(video: Path, picture: np.ndarray) -> None:
    credentials, mark, _ = provenance.verify(video)
    assert "intact; AI-generated" in credentials and mark.endswith("12345678")
    clip = media.probe(video)
    assert (clip.frames, clip.width, clip.height, clip.fps) == (5, 320, 256, 25)
    assert np.abs(next(media.frames(clip)).astype(float) - picture[:256, :320]).mean() < 6
    assert [p.name for p in video.parent.iterdir()] == [video.name]


def test_changed_file_is_called_broken(video: Path) -> None:
    data = bytearray(video.read_bytes())
    data[data.index(b"mdat") + 300] ^= 1
    video.write_bytes(data)
    found = _credentials.read(video)
    assert found is not None and found.state == "changed"
    assert "BROKEN" in provenance.verify(video)[0]


def test_off_switches_are_written_into_the_file(picture: np.ndarray, tmp_path: Path) -> None:
    off = StampConfig(watermark=False, credentials=False)
    provenance.write_video(tmp_path / "a.mp4", [picture] * 2, 25, SILENT, WHO, off)
    provenance.write_image(tmp_path / "a.png", picture, WHO, off)
    for path in (tmp_path / "a.mp4", tmp_path / "a.png"):
        credentials, mark, note = provenance.verify(path)
        assert "none" in credentials and "none can be read" in mark
        assert note.endswith("watermark off; credentials off")
    np.testing.assert_array_equal(media.read_image(tmp_path / "a.png"), picture)
    provenance.write_image(tmp_path / "b.png", picture, WHO, StampConfig(watermark=False))
    found = _credentials.read(tmp_path / "b.png")
    assert found is not None and found.said["marks"] == {"label": False, "watermark": False, "credentials": True}


def test_small_pictures_say_that_they_hold_no_watermark(picture: np.ndarray, tmp_path: Path) -> None:
    provenance.write_image(tmp_path / "a.png", picture[:100, :100], WHO, STAMPED)
    found = _credentials.read(tmp_path / "a.png")
    assert found is not None and not found.said["marks"]["watermark"] and "192 px" in found.said["marks"]["why"]


def test_label_is_visible_and_only_in_its_corner(picture: np.ndarray, tmp_path: Path) -> None:
    provenance.write_image(
        tmp_path / "a.png", picture, WHO, StampConfig(label=True, watermark=False, credentials=False)
    )
    labelled = media.read_image(tmp_path / "a.png")
    changed = np.abs(labelled.astype(int) - picture).max(2) > 20
    rows, cols = np.nonzero(changed)
    assert changed.sum() > 1000 and rows.min() > 512 * 0.85 and cols.max() < 512 * 0.5
    assert (labelled[rows.min() :, : cols.max()] > 250).all(2).sum() > 200  # the letters


def test_nothing_is_left_of_a_writing_that_fails(picture: np.ndarray, tmp_path: Path) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield picture
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        provenance.write_video(tmp_path / "a.mp4", frames(), 25, SILENT, WHO, STAMPED)
    with pytest.raises(InputError, match="no pictures"):
        provenance.write_video(tmp_path / "a.mp4", [], 25, SILENT, WHO, STAMPED)
    assert list(tmp_path.iterdir()) == []


def test_key_is_made_once_and_readable_by_its_owner_alone(
    picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("a.png", "b.png"):
        provenance.write_image(tmp_path / name, picture, WHO, STAMPED)
    a, b = (_credentials.read(tmp_path / name) for name in ("a.png", "b.png"))
    assert a is not None and b is not None and a.signer == b.signer and a.signer.startswith("gsth key ")
    key = tmp_path / "config" / "gsth" / "signing" / "key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert {p.name for p in key.parent.iterdir()} == {"key.pem", "chain.pem"}
    assert [p.name for p in key.parent.parent.iterdir()] == ["signing"]


def test_own_certificate(picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    own = tmp_path / "own"
    own.mkdir()
    chain = _credentials._certificates(authority, key, "studio")
    pem = serialization.Encoding.PEM
    (own / "chain.pem").write_bytes(b"".join(c.public_bytes(pem) for c in chain))
    plain = serialization.NoEncryption()
    (own / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    monkeypatch.setenv("GSTH_SIGNING", str(own))
    provenance.write_image(tmp_path / "a.png", picture, WHO, STAMPED)
    assert "signed by 'gsth key studio'" in provenance.verify(tmp_path / "a.png")[0]

    (own / "key.pem").write_text("not a key")
    with pytest.raises(InputError, match=r"key\.pem: is not a PEM private key"):
        provenance.write_image(tmp_path / "b.png", picture, WHO, STAMPED)
    (own / "key.pem").unlink()
    with pytest.raises(InputError, match=r"lacks key\.pem"):
        provenance.write_image(tmp_path / "b.png", picture, WHO, STAMPED)
    shutil.rmtree(own)
    with pytest.raises(InputError, match="GSTH_SIGNING"):
        provenance.write_image(tmp_path / "b.png", picture, WHO, STAMPED)
    assert not (tmp_path / "b.png").exists() and not own.exists()


def test_absent_package_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch, video: Path) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(MissingExtraError, match=r"gsth\[trust\].*") as raised:
        provenance.check(STAMPED)
    assert "--no-credentials" in str(raised.value)
    provenance.check(StampConfig(credentials=False))
    assert provenance.verify(video)[0].startswith("content credentials: not looked for")
    assert provenance.verify(video)[1].endswith("12345678")


def test_verify_tells_an_avatars_consent(tmp_path: Path) -> None:
    for name, meta in {"a": provenance.record({}, provenance.Consent("I am Ada"), "00"), "b": {}}.items():
        with artifacts.writing(tmp_path / name, "avatar", meta):
            pass
    consent, id = provenance.verify(tmp_path / "a")
    assert (
        "for a person (by option): 'I am Ada'" in consent
        and json.loads((tmp_path / "a/meta.json").read_text())["provenance"]["id"] in id
    )
    assert "none is recorded" in provenance.verify(tmp_path / "b")[0]


def test_verify_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    with pytest.raises(InputError, match="cannot be decoded"):
        provenance.verify(tmp_path / "a.mp4")
    with pytest.raises(InputError, match="wanted an avatar's folder"):
        provenance.verify(tmp_path / "a.exe")
