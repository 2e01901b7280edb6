"""Video, sound and stills, in and out; the only module that knows PyAV (FFmpeg) and imageio.

Pictures are uint8 [h, w, 3], sRGB, turned upright. A clip has a constant frame rate: slot i shows the frame that is
on screen half a slot after i / fps, counted from the first picture. Sound is float32 mono, -1 to 1; where it lies in
one file with a picture, sample 0 is the time of the first picture.
"""

from __future__ import annotations

import contextlib
import os
import wave
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from gsth._media_atoms import track_tags
from gsth._media_rate import constant_rate
from gsth._media_sound import as_frame, mono, rate_of, resampled_pieces, trimmed
from gsth.errors import InputError, OutputError, writes
from gsth.types import Clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

Picture = np.ndarray
"""uint8 [h, w, 3]."""

CRF = 16
"""x264 quality of written videos: no difference to the eye, a few Mbit/s at 512 x 512."""
DRAFT_CRF = 24
"""From this on a video is for looking through, and x264 hurries: a fifth of the work, files somewhat larger."""
MAX_PIXELS = 64_000_000
"""Of one picture; 8K video has 33 million. What claims more is refused before it is decoded."""
MAX_SLOTS = 2_000_000
"""Of one clip: 9 hours at 60 frames a second. Time stamps can claim any length."""
DEMUXERS = (
    "mov mp4 m4a 3gp 3g2 mj2 matroska webm avi mpegts mpeg mpegvideo m4v h264 hevc flv asf ogg gif ivf mxf wav w64 mp3 "
    "flac aac aiff au caf amr png_pipe jpeg_pipe webp_pipe"
)
"""Formats that are read; stills so that the refusal says what they lack. Play lists open other files and addresses."""
STILLS = (".png", ".jpg", ".jpeg", ".webp")
EXIF_DESCRIPTION = 0x010E
UNSPECIFIED = 2
"""What a stream that does not name its colour matrix carries."""
EXACT = Interpolation.BICUBIC | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP | Interpolation.ACCURATE_RND
"""Full chroma interpolation and accurate rounding: without them flat colours shift by some levels."""


def probe(path: Path | str) -> Clip:
    """What a video file holds, from its packets and first picture (headers lie about frame counts and rates).

    Raises:
        InputError: It is missing, empty, not a video, damaged, or has fewer than 2 frames.
    """
    path = Path(path)
    with _reading(path) as container:
        stream = _video_stream(container, path)
        promised = stream.frames
        shown: set[int] = set()
        count = 0
        for packet in container.demux(stream):
            if packet.size == 0:
                continue
            count += 1
            if not packet.is_discard:
                shown.add(packet.pts if packet.pts is not None else packet.dts if packet.dts is not None else count)
        if count < promised - 1:
            raise InputError(
                f"{path}: holds {count} of the {promised} frames that its header promises: cut off; copy it again"
            )
        if len(shown) < 2:
            raise InputError(f"{path}: holds {len(shown)} frame(s), a clip needs at least 2")
        times = np.array(sorted(shown), dtype=np.float64) * float(stream.time_base or 1)
        fps, frames = constant_rate(times)
        if frames > MAX_SLOTS:
            raise InputError(f"{path}: its time stamps span {frames} frames; at most {MAX_SLOTS} are read")
        has_sound = bool(container.streams.audio)
    with _reading(path) as container:
        first = _first_picture(container, path)
        height, width, _ = _upright(first, _square_size(first)).shape
    return Clip(path=path, fps=fps, frames=frames, width=width, height=height, wav=path if has_sound else None)


def frames(clip: Clip, start: int = 0, stop: int | None = None) -> Iterator[Picture]:
    """Frames ``start`` to ``stop`` (not included) of a clip, in order; each array is the caller's own.

    Holds two pictures at a time, whatever the length. A late ``start`` is found by seeking to the key frame before it.

    Raises:
        InputError: The range is not in the clip, or the file is damaged or no longer what was probed.
    """
    stop = clip.frames if stop is None else stop
    if not 0 <= start <= stop <= clip.frames:
        raise InputError(f"{clip.path}: frames {start} to {stop} were asked for, it has {clip.frames}")
    return _slots(clip, start, stop)


def sound(path: Path | str, rate: int = 16000) -> NDArray[np.float32]:
    """The sound of a file (any container), all channels averaged, resampled to ``rate`` Hz: float32 [samples].

    Raises:
        InputError: It is missing, damaged, or has no sound.
    """
    return np.concatenate(list(sound_pieces(path, rate)))


def sound_pieces(path: Path | str, rate: int = 16000) -> Iterator[NDArray[np.float32]]:
    """``sound`` in pieces of any length, so that a file of hours takes no more memory than one of seconds.

    Raises:
        InputError: As ``sound``, once the first piece is asked for.
    """
    path = Path(path)
    origin, empty = 0.0, True
    with _reading(path) as container:
        if not container.streams.audio:
            raise InputError(f"{path}: has no sound; wanted a file with an audio stream, for example a wav")
        if _pictures(container):
            origin = _first_picture(container, path).time or 0.0
    with _reading(path) as container:
        source_rate = rate_of(container, path)
        heard = trimmed(mono(container, origin, path), container, origin)
        for piece in resampled_pieces(heard, source_rate, rate):
            empty = empty and piece.size == 0
            yield piece
    if empty:
        raise InputError(f"{path}: its sound is empty")


def resampled(samples: NDArray[np.float32], source_rate: int, rate: int) -> NDArray[np.float32]:
    """Mono samples at another rate, Hz; as long as before to within a sample."""
    return np.concatenate([np.zeros(0, np.float32), *resampled_pieces(iter((samples,)), source_rate, rate)])


def write_video(
    path: Path | str,
    pictures: Iterable[Picture],
    fps: float,
    sound: NDArray[np.float32] | None = None,
    sound_rate: int = 16000,
    crf: int = CRF,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write H.264 (yuv420p, BT.709) with AAC sound; the file appears when it is whole.

    ``tags`` say something of the film: players show "comment"; keys with dots are QuickTime's (com.apple.quicktime...).
    The sound starts with the first picture and is cut, or filled with silence, to the length of the picture.
    Pictures of odd width or height get their last column or row twice, because yuv420p needs even sizes.

    Raises:
        InputError: There are no pictures, or they are not uint8 [h, w, 3] of one size.
        OutputError: It cannot be written (folder, permission, space).
    """
    path = Path(path)
    if fps <= 0:
        raise InputError(f"{path}: the frame rate must be above 0, got {fps}")
    with whole_file(path) as part, part.open("wb") as file:
        try:
            # the plain list of tags, which players read, holds none but MP4's own
            options = {"movflags": "use_metadata_tags"} if any("." in key for key in tags or ()) else {}
            with av.open(file, "w", format="mp4", options=options) as container:
                container.metadata.update(tags or {})
                _encode(container, path, pictures, Fraction(fps).limit_denominator(1001), sound, sound_rate, crf)
        except av.error.FFmpegError as error:
            # closing after a failed write raises an error of its own over the one that says why
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def write_sound(path: Path | str, samples: NDArray[np.float32], rate: int) -> None:
    """Write mono float samples (-1 to 1, cut off beyond) as a 16-bit wav; the file appears when it is whole."""
    if samples.ndim != 1:
        raise InputError(f"{path}: sound must be mono [samples], got {list(samples.shape)}")
    with whole_file(Path(path)) as part, part.open("wb") as file, wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def read_image(path: Path | str) -> Picture:
    """A still as uint8 [h, w, 3], turned upright as its EXIF says; transparency is dropped."""
    import imageio.v3 as iio
    from PIL import Image

    path = Path(path)
    _check_file(path)
    try:
        with Image.open(path) as still:
            if still.width * still.height > MAX_PIXELS:
                raise ValueError(f"{still.width} x {still.height} pixels; at most {MAX_PIXELS} are read")
        return np.ascontiguousarray(iio.imread(path, plugin="pillow", index=0, mode="RGB", rotate=True))
    except Exception as error:  # pillow raises anything on damaged files
        raise InputError(f"{path}: cannot be read as a picture ({error}); wanted PNG, JPEG or another still") from error


def comment(path: Path | str) -> str | None:
    """The comment in a video or still, as ``write_video`` and ``write_image`` put it there, or None."""
    from PIL import Image

    path = Path(path)
    _check_file(path)
    if path.suffix.lower() in STILLS:
        try:
            with Image.open(path) as still:
                found = still.getexif().get(EXIF_DESCRIPTION)
        except Exception as error:  # pillow raises anything on damaged files
            raise InputError(f"{path}: cannot be read as a picture ({error}); wanted a whole one") from error
    else:
        found = tags(path).get("comment")
    return str(found) if found else None


def tags(path: Path | str) -> dict[str, str]:
    """What a video says of itself: tags of the file, then those of its tracks; keys are in lower case.

    Raises:
        InputError: It is missing, empty, damaged or not a media file.
    """
    path = Path(path)
    with _reading(path) as container:
        found = [container.metadata, *(s.metadata for s in _pictures(container)), track_tags(path)]
        return {key.lower(): str(value) for part in reversed(found) for key, value in part.items()}


def write_image(path: Path | str, picture: Picture, comment: str | None = None) -> None:
    """Write uint8 [h, w], [h, w, 3] or [h, w, 4] in the format of the suffix (PNG is lossless), whole or not at all.

    ``comment`` goes into the EXIF description.
    """
    import imageio.v3 as iio
    from PIL import Image

    path = Path(path)
    if (
        picture.dtype != np.uint8
        or picture.ndim not in (2, 3)
        or (picture.ndim == 3 and picture.shape[2] not in (3, 4))
    ):
        raise InputError(
            f"{path}: want uint8 [h, w], [h, w, 3] or [h, w, 4], got {picture.dtype} {list(picture.shape)}"
        )
    suffix = path.suffix.lower()
    if suffix not in STILLS:
        raise InputError(f"{path}: stills are written as .png, .jpg or .webp, not {suffix!r}")
    options: dict[str, Any] = {"quality": 95} if suffix != ".png" else {}
    if comment is not None:
        exif = Image.Exif()
        exif[EXIF_DESCRIPTION] = comment
        options["exif"] = exif.tobytes()
    with whole_file(path) as part:
        iio.imwrite(part, picture, plugin="pillow", extension=suffix, **options)


# ---------------------------------------------------------------------------------------------- reading


def _check_file(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    if path.is_dir():
        raise InputError(f"{path}: is a folder, wanted a file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if empty:
        raise InputError(f"{path}: is empty (0 bytes)")


_SAFE = {"format_whitelist": ",".join(DEMUXERS.split()), "protocol_whitelist": "file"}


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """An open container; whatever FFmpeg says against it becomes an InputError that names the file."""
    _check_file(path)
    try:
        with av.open(str(path), options=_SAFE, metadata_errors="replace") as container:
            yield container
    except av.error.FFmpegError as error:
        reason = (error.strerror or str(error)).lower()
        # no memory, or no thread to decode with; but a damaged file can ask for any amount, too
        short = isinstance(error, (av.error.MemoryError, av.error.BlockingIOError))
        why = "too little free memory here, or damaged" if short else "not a media file, damaged or cut off"
        raise InputError(f"{path}: cannot be decoded ({reason}): {why}") from error


def _pictures(container: Any) -> list[Any]:
    """The video streams, without the cover pictures of music files."""
    return [s for s in container.streams.video if "attached_pic" not in str(s.disposition).lower()]


def _video_stream(container: Any, path: Path) -> Any:
    streams = _pictures(container)
    if not streams:
        raise InputError(f"{path}: has no picture, wanted a video")
    if streams[0].codec_context is None:
        raise InputError(f"{path}: its picture is of an unknown codec, or damaged")
    if streams[0].width * streams[0].height > MAX_PIXELS:
        raise InputError(f"{path}: {streams[0].width} x {streams[0].height} pixels; at most {MAX_PIXELS} are read")
    streams[0].thread_type = "AUTO"
    return streams[0]


def _first_picture(container: Any, path: Path) -> Any:
    stream = _video_stream(container, path)
    frame = next(container.decode(stream), None)
    if frame is None:
        raise InputError(f"{path}: not one frame of it can be decoded; it is damaged")
    return frame


def _slots(clip: Clip, start: int, stop: int) -> Iterator[Picture]:
    """Sample and hold: slot i shows the last frame whose time is at most (i + 0.5) / fps."""
    if start == stop:
        return
    held, slot = None, start
    size: tuple[int, int] | None = None
    for time, frame in _timed(clip, start):
        size = size or _square_size(frame)
        while held is not None and slot < stop and time >= (slot + 0.5) / clip.fps:
            yield _upright(held, size)
            slot += 1
        if slot == stop:
            return
        held = frame
    if held is None or size is None or stop - slot > max(3.0, 0.25 * clip.fps):
        raise InputError(
            f"{clip.path}: frames {slot} to {stop} cannot be decoded; it is damaged, or changed since it was probed"
        )
    for _ in range(slot, stop):
        yield _upright(held, size)


def _timed(clip: Clip, start: int) -> Iterator[tuple[float, Any]]:
    """Decoded frames with their times, s from the first picture, from a key frame before slot ``start`` on."""
    with _reading(clip.path) as container:
        origin = _first_picture(container, clip.path).time or 0.0
    for seek in (start > 0, False):
        with _reading(clip.path) as container:
            stream = _video_stream(container, clip.path)
            if seek:
                target = origin + (start - 0.5) / clip.fps
                container.seek(max(0, int(target * av.time_base)))
            late = False
            time = -1.0 / clip.fps
            for frame in container.decode(stream):
                time = time + 1.0 / clip.fps if frame.time is None else frame.time - origin
                late = seek and time > (start + 0.5) / clip.fps
                if late:
                    break
                seek = False
                yield time, frame
            if not late:
                return


def _square_size(frame: Any) -> tuple[int, int]:
    """Width and height with square pixels, before rotation."""
    aspect = getattr(frame, "sample_aspect_ratio", None) or Fraction(1)
    return (round(frame.width * aspect) if aspect > 0 else frame.width), frame.height


def _upright(frame: Any, size: tuple[int, int]) -> Picture:
    """RGB, with the colour matrix that the stream names (else the usual one for its height), rotated for display."""
    matrix = frame.colorspace
    if int(matrix) == UNSPECIFIED:
        matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    rgb = frame.reformat(*size, format="rgb24", src_colorspace=matrix, interpolation=EXACT).to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))


# ---------------------------------------------------------------------------------------------- writing


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary neighbour of ``path`` that takes its name on success and vanishes on failure."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with writes(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise OutputError(f"{path}: is a folder, wanted the name of a file to write")
            yield part
            part.replace(path)
    finally:
        with contextlib.suppress(OSError):  # a folder that cannot be reached holds no part either
            part.unlink(missing_ok=True)


def _encode(
    container: Any,
    path: Path,
    pictures: Iterable[Picture],
    rate: Fraction,
    sound: NDArray[np.float32] | None,
    sound_rate: int,
    crf: int,
) -> None:
    video, voice, count = None, None, 0
    for picture in pictures:
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise InputError(
                f"{path}: picture {count} must be uint8 [h, w, 3], got {picture.dtype} {list(picture.shape)}"
            )
        even = np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")
        if video is None:
            video = _video_out(container, even.shape[1], even.shape[0], rate, crf)
            voice = None if sound is None else container.add_stream("aac", rate=sound_rate, layout="mono")
        if even.shape != (video.height, video.width, 3):
            raise InputError(
                f"{path}: picture {count} is {list(picture.shape)}, the first was {[video.height, video.width, 3]}"
            )
        container.mux(video.encode(_video_frame(even, count, rate)))
        count += 1
    if video is None:
        raise InputError(f"{path}: there are no pictures to write")
    container.mux(video.encode(None))
    if sound is not None and voice is not None:
        length = round(count / rate * sound_rate)
        fitted = np.pad(sound.astype(np.float32), (0, max(0, length - sound.size)))[:length]
        for part in (as_frame(fitted, sound_rate), None):
            container.mux(voice.encode(part))


def _video_out(container: Any, width: int, height: int, rate: Fraction, crf: int) -> Any:
    preset = "medium" if crf < DRAFT_CRF else "superfast"
    stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset})
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.color_range = ColorRange.MPEG
    context.colorspace = Colorspace.ITU709
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709
    return stream


def _video_frame(picture: Picture, index: int, rate: Fraction) -> Any:
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=EXACT
    )
    frame.pts, frame.time_base = index, 1 / rate
    return frame
