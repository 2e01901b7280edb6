"""Sound as FFmpeg decodes it, piece by piece: one channel, in time with the picture, at any rate."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from gsth.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MAX_SAMPLES = 600_000_000
"""Of one file: 3 hours of sound at 48 kHz. Time stamps can claim any length."""
MIN_RATE, MAX_RATE = 1000, 1_000_000
"""Of sound, Hz; less is damage, and would be resampled into an enormous amount, and more takes filters as long."""
GAP_S = 0.04
"""Sound that is missing for longer than this becomes silence, so that what follows stays in time."""
CODEC_FRAME = 4096
"""Codecs fill their last frame with silence, at most so many samples; the header tells where the sound ends."""


def rate_of(container: Any, path: Path) -> int:
    """Samples a second of the first sound of a container; refuses damage."""
    stream = container.streams.audio[0]
    if stream.codec_context is None or not MIN_RATE <= stream.rate <= MAX_RATE:
        raise InputError(
            f"{path}: its sound is damaged, of an unknown codec, or not of {MIN_RATE} to {MAX_RATE} samples a second"
        )
    return int(stream.rate)


def mono(container: Any, origin: float, path: Path) -> Iterator[NDArray[np.float32]]:
    """All sound as mono at its own rate, in pieces; sample 0 is at ``origin`` s on the container's clock."""
    stream = container.streams.audio[0]
    stream.thread_type = "AUTO"
    packed: Any = None
    rate, have = int(stream.rate), 0
    for frame in container.decode(stream):
        # Not planar: of eight or more planes PyAV reads some that are not there, and the process crashes.
        packed = packed or av.AudioResampler(format="flt", rate=rate)
        if frame.time is not None:
            missing = round((frame.time - origin) * rate) - have
            if abs(missing) > MAX_SAMPLES or have > MAX_SAMPLES:
                raise InputError(f"{path}: its sound spans more than {MAX_SAMPLES} samples; cut it")
            if missing > (GAP_S * rate if have else 0):
                yield np.zeros(missing, np.float32)
                have += missing
            elif not have:
                have = missing  # sound from before the first picture: counted as negative, cut off below
        for part in packed.resample(frame):
            # swresample would sum float channels to above 1; the mean cannot clip
            piece = part.to_ndarray().reshape(-1, part.layout.nb_channels).mean(1, dtype=np.float32)
            early, have = min(max(0, -have), piece.size), have + piece.size
            if early < piece.size:
                yield piece[early:]


def trimmed(pieces: Iterator[NDArray[np.float32]], container: Any, origin: float) -> Iterator[NDArray[np.float32]]:
    """The pieces without what a codec put after the end that the header tells."""
    stream = container.streams.audio[0]
    rate, end = int(stream.rate), None
    if stream.duration is not None:
        end = round(float((stream.start_time or 0) + stream.duration) * float(stream.time_base) * rate - origin * rate)
    kept, count = np.zeros(0, np.float32), 0
    for piece in pieces:
        kept, count = np.concatenate((kept, piece)), count + piece.size
        if kept.size > CODEC_FRAME:
            yield kept[:-CODEC_FRAME]
            kept = kept[-CODEC_FRAME:]
    surplus = 0 if end is None else count - end
    kept = kept[: kept.size - surplus] if 0 < surplus <= CODEC_FRAME else kept
    if kept.size:
        yield kept


def resampled_pieces(
    pieces: Iterator[NDArray[np.float32]], source_rate: int, rate: int
) -> Iterator[NDArray[np.float32]]:
    """Mono pieces at another rate, Hz: together as long as before to within a sample."""
    if source_rate == rate:
        yield from pieces
        return
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    came = went = 0
    for piece in pieces:
        came += piece.size
        if piece.size:
            for part in resampler.resample(as_frame(piece, source_rate)):
                out = part.to_ndarray()[0][: round(came * rate / source_rate) - went]
                went += out.size
                yield out
    for part in resampler.resample(None):
        out = part.to_ndarray()[0][: round(came * rate / source_rate) - went]
        went += out.size
        yield out
    if (missing := round(came * rate / source_rate) - went) > 0:
        yield np.zeros(missing, np.float32)


def as_frame(samples: NDArray[np.float32], rate: int) -> Any:
    """Mono samples as FFmpeg takes them."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None], np.float32), format="flt", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame
