from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsth import media
from gsth.errors import InputError
from gsth.provenance import _watermark

ID = 0xC0FFEE12


def right(picture: np.ndarray) -> float:
    return float(np.mean((_watermark.read([picture]).bits > 0) == _watermark.code(ID)))


def scaled(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.fixture(scope="module")
def marked(picture: np.ndarray) -> np.ndarray:
    return _watermark.embed(picture, ID)


def test_mark_cannot_be_seen(picture: np.ndarray, marked: np.ndarray) -> None:
    mse = np.mean((picture.astype(float) - marked) ** 2)
    assert 10 * np.log10(255**2 / mse) >= 42
    assert np.abs(picture.astype(int) - marked).max() <= 12
    assert marked.dtype == np.uint8 and marked.shape == picture.shape


def test_unmarked_picture_reads_as_none(picture: np.ndarray, marked: np.ndarray) -> None:
    assert _watermark.read([picture]).id is None
    assert _watermark.read([marked]).id == ID


@pytest.mark.parametrize("size", [(256, 256), (300, 300), (640, 640)])
def test_resize(marked: np.ndarray, size: tuple[int, int]) -> None:
    assert right(scaled(marked, *size)) >= 0.95
    assert _watermark.read([scaled(marked, *size)]).id == ID


def test_jpeg(marked: np.ndarray) -> None:
    assert right(jpeg(marked, 80)) >= 0.95 and right(jpeg(scaled(marked, 256, 256), 80)) >= 0.95


def test_video_at_crf_23(marked: np.ndarray, tmp_path: Path) -> None:
    media.write_video(tmp_path / "a.mp4", [marked] * 6, 30, crf=23)
    frames = list(media.frames(media.probe(tmp_path / "a.mp4")))
    assert np.mean([right(f) for f in frames]) >= 0.95
    assert _watermark.read(frames).id == ID


def test_tall_picture_and_saturated_ones(picture: np.ndarray) -> None:
    tall = scaled(picture, 202, 711)
    assert _watermark.read([_watermark.embed(tall, ID)]).id == ID
    for flat in (0, 255):  # half of the change is cut off
        full = np.full((300, 400, 3), flat, np.uint8)
        assert _watermark.read([_watermark.embed(full, ID)]).id == ID


def test_votes_of_frames_are_added(picture: np.ndarray, marked: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    noisy = [np.clip(marked + rng.normal(0, 110, marked.shape), 0, 255).astype(np.uint8) for _ in range(24)]
    single = np.mean([right(p) for p in noisy])
    together = np.mean((_watermark.read(noisy).bits > 0) == _watermark.code(ID))
    assert single < 1 and together > single


@pytest.mark.parametrize("id", [0, 1, 0xFFFFFFFF])
def test_ids(picture: np.ndarray, id: int) -> None:
    assert _watermark.read([_watermark.embed(picture, id)]).id == id


def test_wrong_input_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="32 bits"):
        _watermark.embed(picture, 1 << 32)
    with pytest.raises(InputError, match="at least 192 px"):
        _watermark.embed(picture[:100], ID)
    assert _watermark.read([picture[:50, :50]]).id is None and _watermark.read([]).id is None


def test_check_sum_is_crc_16_ccitt() -> None:
    """Against the standard library."""
    import binascii

    for id in (0x31323334, 0, 0xDEADBEEF):
        assert _watermark._check(id) == binascii.crc_hqx(id.to_bytes(4, "big"), 0xFFFF)
