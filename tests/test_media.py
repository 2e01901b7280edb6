"""Video, sound and stills in and out: exactness, bad input, nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from gsth import media
from gsth.errors import InputError, OutputError

PATCHES = [
    (0, 0, 0),
    (255, 255, 255),
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (200, 150, 120),
    (128, 128, 128),
    (30, 60, 90),
]


def counting(count: int, height: int = 48, width: int = 64, first: int = 0) -> Iterator[np.ndarray]:
    """Pictures whose grey tells their index, 4 levels a step."""
    for i in range(first, first + count):
        yield np.full((height, width, 3), 10 + 4 * i, np.uint8)


def index_of(picture: np.ndarray) -> int:
    return round((float(picture.mean()) - 10) / 4)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 counting frames at 25 fps, with a click at 1 s."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    sound = np.zeros(48000, np.float32)
    sound[16000:16040] = 0.9
    media.write_video(path, counting(40), 25, sound, 16000)
    return path


def write_timed(path: Path, times_ms: list[int], sound_delay_ms: int | None = None) -> None:
    """A file whose frames are shown at the given times; a click sounds at 500 ms of the sound."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=30, options={"crf": "10", "bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = media.Fraction(1, 1000)
        sound = None if sound_delay_ms is None else out.add_stream("pcm_s16le", rate=16000, layout="mono")
        for i, (picture, ms) in enumerate(zip(counting(len(times_ms)), times_ms, strict=True)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = ms, media.Fraction(1, 1000)
            out.mux(video.encode(frame))
            if sound is not None and i == 0:
                click = np.zeros((1, 16000), np.int16)
                click[0, 8000:8020] = 30000
                part = av.AudioFrame.from_ndarray(click, format="s16", layout="mono")
                part.sample_rate, part.pts, part.time_base = 16000, sound_delay_ms * 16, media.Fraction(1, 16000)
                out.mux(sound.encode(part))
        out.mux(video.encode(None))


def test_round_trip_keeps_count_rate_and_order(film: Path) -> None:
    clip = media.probe(film)
    assert (clip.fps, clip.frames, clip.width, clip.height, clip.wav) == (25.0, 40, 64, 48, film)
    assert [index_of(p) for p in media.frames(clip)] == list(range(40))


def test_any_range_is_the_same_as_from_the_start(film: Path) -> None:
    clip = media.probe(film)
    for start, stop in ((0, 1), (1, 3), (17, 30), (39, 40), (12, 12)):
        assert [index_of(p) for p in media.frames(clip, start, stop)] == list(range(start, stop))
    with pytest.raises(InputError, match="it has 40"):
        media.frames(clip, 0, 41)


def test_frames_are_the_callers_own(tmp_path: Path) -> None:
    write_timed(tmp_path / "hold.mkv", [0, 33, 67, 500, 533, 567, 600])
    clip = media.probe(tmp_path / "hold.mkv")
    kept = []
    for picture in media.frames(clip):
        kept.append(index_of(picture))
        picture[:] = 255
    assert kept.count(2) == 13 and max(kept) == 6


def test_sound_is_in_time_and_as_long_as_the_picture(film: Path) -> None:
    sound = media.sound(film)
    assert sound.dtype == np.float32 and abs(sound.size - 1.6 * 16000) <= 16
    assert abs(int(np.abs(sound).argmax()) - 16020) <= 32  # 2 ms: the click, through AAC
    assert abs(media.sound(film, 48000).size - 1.6 * 48000) <= 48


def test_short_sound_is_filled_with_silence(tmp_path: Path) -> None:
    media.write_video(tmp_path / "v.mp4", counting(50), 25, np.full(16000, 0.3, np.float32), 16000)
    sound = media.sound(tmp_path / "v.mp4")
    assert abs(sound.size - 32000) <= 16 and np.abs(sound[17600:]).max() < 0.01 < np.abs(sound[2000:14000]).mean()


def test_colours_come_back(tmp_path: Path) -> None:
    picture = np.concatenate([np.full((32, 32, 3), c, np.uint8) for c in PATCHES], 1)
    media.write_video(tmp_path / "c.mp4", [picture] * 5, 25)
    back = list(media.frames(media.probe(tmp_path / "c.mp4")))[2]
    found = np.array([back[16, 16 + 32 * i] for i in range(len(PATCHES))], int)
    assert np.abs(found - PATCHES).max() <= 2
    with av.open(str(tmp_path / "c.mp4")) as file:
        context = file.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


def test_natural_picture_survives_compression(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :128] / 32
    waves = [np.cos(x * a + y * b + c) for a, b, c in ((1.3, 0.4, 0), (0.2, 1.9, 1), (1.1, -0.8, 2))]
    smooth = 127.5 + 100 * np.stack(waves, -1)
    media.write_video(tmp_path / "n.mp4", [smooth.astype(np.uint8)] * 3, 25)
    back = next(media.frames(media.probe(tmp_path / "n.mp4"))).astype(float)
    assert 10 * np.log10(255**2 / np.mean((back - smooth.astype(np.uint8)) ** 2)) > 40


def test_odd_sizes_are_padded_by_their_edge(tmp_path: Path) -> None:
    picture = np.full((33, 47, 3), 60, np.uint8)
    picture[:, 40:] = 200
    media.write_video(tmp_path / "odd.mp4", [picture] * 3, 25)
    clip = media.probe(tmp_path / "odd.mp4")
    assert (clip.width, clip.height) == (48, 34)
    assert abs(int(next(media.frames(clip))[10, 47, 0]) - 200) <= 3


@pytest.mark.parametrize("fps", [24000 / 1001, 30000 / 1001, 12.5, 60.0])
def test_rates_come_back(tmp_path: Path, fps: float) -> None:
    media.write_video(tmp_path / "r.mp4", counting(31), fps)
    clip = media.probe(tmp_path / "r.mp4")
    assert clip.fps == pytest.approx(fps, rel=1e-6) and clip.frames == 31


def test_variable_rate_becomes_constant(tmp_path: Path) -> None:
    """A phone that drops frames: what is shown at every slot is what was on screen then."""
    times = [0, 33, 67, 100, 133, 300, 333, 367, 400, 433, 600, 633, 667, 700]
    write_timed(tmp_path / "vfr.mkv", times)
    clip = media.probe(tmp_path / "vfr.mkv")
    assert (clip.fps, clip.frames) == (30.0, 22)
    shown = [index_of(p) for p in media.frames(clip)]
    wanted = [max(j for j, ms in enumerate(times) if ms / 1000 <= (i + 0.5) / 30) for i in range(22)]
    assert shown == wanted
    assert [index_of(p) for p in media.frames(clip, 9, 20)] == wanted[9:20]


@pytest.mark.parametrize("delay_ms", [0, 200, 1000])
def test_sound_offset_against_the_picture_is_kept(tmp_path: Path, delay_ms: int) -> None:
    write_timed(tmp_path / "o.mkv", [400 + round(i * 1000 / 30) for i in range(12)], sound_delay_ms=delay_ms)
    sound = media.sound(tmp_path / "o.mkv")
    click = int(np.abs(sound).argmax())
    assert click == pytest.approx((delay_ms + 500 - 400) * 16, abs=40)  # the first picture is at 400 ms


def test_rotation_flag_is_applied(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = (255, 0, 0)
    path = tmp_path / "phone.mp4"
    media.write_video(path, [picture] * 3, 25)
    plain = bytes.fromhex("00010000 00000000 00000000 00000000 00010000 00000000 00000000 00000000 40000000")
    turned = bytes.fromhex("00000000 00010000 00000000 FFFF0000 00000000 00000000 00000000 00000000 40000000")
    data = path.read_bytes()
    at = data.index(plain, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + len(plain) :])  # players turn it by 90 degrees clockwise
    clip = media.probe(path)
    assert (clip.width, clip.height) == (48, 64)
    upright = next(media.frames(clip))
    assert upright.shape == (64, 48, 3)
    assert upright[10, 40, 0] > 200 and upright[10, 8, 0] < 30 and upright[50, 40, 0] < 30


@pytest.mark.parametrize("rate", [10, 1_073_757_824])
def test_sound_at_an_impossible_rate_is_refused(tmp_path: Path, rate: int) -> None:
    import wave

    with wave.open(str(tmp_path / "r.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(4000))
    with pytest.raises(InputError, match=r"r.wav: its sound is damaged.* 1000 to 1000000 samples a second"):
        media.sound(tmp_path / "r.wav")


@pytest.mark.parametrize("channels", [6, 8, 33])
def test_many_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    import wave

    levels = 256 * np.arange(1, channels + 1)
    with wave.open(str(tmp_path / "many.wav"), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(np.tile(levels, (4000, 1)).astype("<i2").tobytes())
    sound = media.sound(tmp_path / "many.wav", 16000)
    assert sound.size == 4000
    np.testing.assert_allclose(sound, levels.mean() / 32768, atol=1e-6)


def test_stereo_is_averaged_and_resampled(tmp_path: Path) -> None:
    import wave

    t = np.arange(44100) / 44100
    left, right = 0.8 * np.sin(2 * np.pi * 440 * t), np.zeros_like(t)
    with wave.open(str(tmp_path / "s.wav"), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(44100)
        out.writeframes((np.stack((left, right), 1) * 32767).astype("<i2").tobytes())
    sound = media.sound(tmp_path / "s.wav")
    wanted = 0.4 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert sound.size == 16000 and np.abs(sound[200:-200] - wanted[200:-200]).max() < 0.01


def test_pieces_are_the_whole(tmp_path: Path) -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal(30_000).astype(np.float32)
    media.write_sound(tmp_path / "n.wav", sound, 22050)
    whole = media.sound(tmp_path / "n.wav")
    pieces = list(media.sound_pieces(tmp_path / "n.wav"))
    assert len(pieces) > 3 and max(p.size for p in pieces) < 8000
    assert np.array_equal(np.concatenate(pieces), whole)
    # and the pieces join without a seam: resampled as one they are the same
    at_once = media.resampled(media.sound(tmp_path / "n.wav", 22050), 22050, 16000)
    assert at_once.size == whole.size and np.abs(at_once - whole).max() < 1e-6


def test_wav_round_trip(tmp_path: Path) -> None:
    sound = np.linspace(-1.2, 1.2, 5000, dtype=np.float32)
    media.write_sound(tmp_path / "w.wav", sound, 16000)
    assert np.abs(media.sound(tmp_path / "w.wav") - np.clip(sound, -1, 1)).max() < 1e-4
    with pytest.raises(InputError, match="mono"):
        media.write_sound(tmp_path / "w.wav", np.zeros((2, 5), np.float32), 16000)


def test_stills_round_trip(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    media.write_image(tmp_path / "p.png", picture)
    assert (media.read_image(tmp_path / "p.png") == picture).all()
    media.write_image(tmp_path / "a.png", np.dstack((picture, picture[..., :1])))
    assert media.read_image(tmp_path / "a.png").shape == (33, 47, 3)
    media.write_image(tmp_path / "g.png", picture[..., 0])
    assert (media.read_image(tmp_path / "g.png") == picture[..., :1]).all()
    media.write_image(tmp_path / "j.jpg", np.full((16, 16, 3), 90, np.uint8))
    assert np.abs(media.read_image(tmp_path / "j.jpg").astype(int) - 90).max() <= 2
    with pytest.raises(InputError, match="uint8"):
        media.write_image(tmp_path / "f.png", picture / 255.0)
    with pytest.raises(InputError, match=".png"):
        media.write_image(tmp_path / "f.tga", picture)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    with pytest.raises(InputError, match="broken.png"):
        media.read_image(tmp_path / "broken.png")
    assert not list(tmp_path.glob(".*"))


def test_bad_files_are_refused_by_name(tmp_path: Path, film: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no film\n" * 100)
    media.write_sound(tmp_path / "only.wav", np.zeros(1600, np.float32), 16000)
    media.write_image(tmp_path / "still.png", np.zeros((16, 16, 3), np.uint8))
    media.write_video(tmp_path / "one.mp4", counting(1), 25)
    data = film.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    for name, reason in {
        "absent.mp4": "no such file",
        ".": "folder",
        "empty.mp4": "empty",
        "text.mp4": "cannot be decoded",
        "only.wav": "no picture",
        "still.png": "at least 2",
        "one.mp4": "at least 2",
        "cut.mp4": "cut off",
    }.items():
        with pytest.raises(InputError, match=reason):
            media.probe(tmp_path / name)
    with pytest.raises(InputError, match="no sound"):
        media.sound(tmp_path / "one.mp4")
    with pytest.raises(InputError, match="no such file"):
        media.sound(tmp_path / "absent.wav")


def test_film_cut_off_behind_its_header_is_refused(tmp_path: Path, film: Path) -> None:
    """A streamable file (index in front) that lost its end still opens; it must not pass as a shorter film."""
    with av.open(str(film)) as src, av.open(str(tmp_path / "s.mp4"), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream_from_template(src.streams.video[0])
        for packet in src.demux(src.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    data = (tmp_path / "s.mp4").read_bytes()
    assert media.probe(tmp_path / "s.mp4").frames == 40
    (tmp_path / "s.mp4").write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    with pytest.raises(InputError, match="s.mp4"):
        media.probe(tmp_path / "s.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_permissions_are_named(tmp_path: Path, film: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(film.read_bytes())
    (tmp_path / "x.mp4").chmod(0)
    with pytest.raises(InputError, match="[Pp]ermission"):
        media.probe(tmp_path / "x.mp4")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="[Pp]ermission"):
        media.write_video(tmp_path / "y.mp4", counting(2), 25)


def test_failed_writing_leaves_nothing(tmp_path: Path) -> None:
    def breaks() -> Iterator[np.ndarray]:
        yield from counting(5)
        raise RuntimeError("renderer died")

    out = tmp_path / "v.mp4"
    out.write_bytes(b"the old one")
    with pytest.raises(RuntimeError, match="renderer died"):
        media.write_video(out, breaks(), 25)
    with pytest.raises(InputError, match="no pictures"):
        media.write_video(out, [], 25)
    with pytest.raises(InputError, match="picture 1"):
        media.write_video(out, [np.zeros((16, 16, 3), np.uint8), np.zeros((16, 18, 3), np.uint8)], 25)
    with pytest.raises(InputError, match="uint8"):
        media.write_video(out, [np.zeros((16, 16, 3), np.float32)], 25)
    assert out.read_bytes() == b"the old one" and os.listdir(tmp_path) == ["v.mp4"]
    with pytest.raises(OutputError, match="folder"):
        media.write_video(tmp_path, counting(2), 25)
    with pytest.raises(OutputError, match="part of the path"):
        media.write_video(out / "deeper.mp4", counting(2), 25)


FULL = """
import resource, sys, numpy as np
from gsth import media, errors
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))  # what a full disk does, without one
rng = np.random.default_rng(0)
try:
    media.write_video(sys.argv[1], (rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(40)), 25)
except errors.OutputError as error:
    print(error)
"""


def test_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "v.mp4")], capture_output=True, text=True, timeout=60, check=True
    )
    assert "v.mp4: cannot be written" in ran.stdout and not os.listdir(tmp_path)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("hill.mp4", (25.0, 200, 512, 512)),
        ("faces.mp4", (30.0, 1008, 480, 480)),
        ("talk.mp4", (30.0, 600, 1080, 1920)),
        ("host.mp4", (25.0, 502, 1080, 1920)),
    ],
)
def test_recorded_clips(clips: Path, name: str, wanted: tuple[float, int, int, int]) -> None:
    clip = media.probe(clips / name)
    assert (clip.fps, clip.frames, clip.width, clip.height) == wanted
    last = list(media.frames(clip, clip.frames - 2))
    assert [p.shape for p in last] == [(clip.height, clip.width, 3)] * 2
    assert abs(media.sound(clips / name).size / 16000 - clip.seconds) < 0.2


def test_play_lists_do_not_open_other_files(film: Path, tmp_path: Path) -> None:
    """A file that names itself .mp4 but is a play list could read any file, or call a server."""
    for name, text in {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{film}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile '{film}'\n",
    }.items():
        file = tmp_path / f"{name}.mp4"
        file.write_text(text)
        with pytest.raises(InputError, match="cannot be decoded"):
            media.probe(file)


def test_pictures_that_would_fill_the_memory_are_not_decoded(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.write_image(tmp_path / "a.png", np.zeros((50, 60, 3), np.uint8))
    monkeypatch.setattr(media, "MAX_PIXELS", 2000)
    with pytest.raises(InputError, match="60 x 50 pixels; at most 2000"):
        media.read_image(tmp_path / "a.png")
    monkeypatch.setattr(media, "MAX_PIXELS", 100)
    with pytest.raises(InputError, match="at most 100 are read"):
        media.probe(film)


def test_time_stamps_cannot_claim_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_timed(tmp_path / "v.mkv", [0, 33, 67, 100, 133, 167, 3_600_000])
    monkeypatch.setattr(media, "MAX_SLOTS", 100_000)
    with pytest.raises(InputError, match="its time stamps span"):
        media.probe(tmp_path / "v.mkv")


def test_comment_comes_back(film: Path, tmp_path: Path) -> None:
    assert media.comment(film) is None
    media.write_video(tmp_path / "v.mp4", counting(2), 25, tags={"comment": "said"})
    assert media.comment(tmp_path / "v.mp4") == "said"
    for name in ("a.png", "a.jpg", "a.webp"):
        media.write_image(tmp_path / name, np.zeros((20, 20, 3), np.uint8), comment="said")
        assert media.comment(tmp_path / name) == "said"
